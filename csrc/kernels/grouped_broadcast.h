/* The multiply of weights in blocks along k on all x86 ISAs, for kernels/gemm_grouped_body.h. A kernel file
 * includes the vocabulary of its ISA, defines
 *
 *      MR, NV                             the tile: rows, and vectors of LANES columns
 *      SUM_STEPS                          steps of codes below 16 that add_codes may sum before `widened`; 0: any number
 *      add_codes(acc, codes, a, small)    acc + the products of 32 bits of A, in every lane, with such a vector
 *      widened(acc)                       with SUM_STEPS: sums of small codes as int32
 *
 * and includes this file before the body.
 *
 * Trick: codes are unsigned and A is signed, just as vpdpbusd and vpmaddubsw want it.
 */
#ifndef QK_GROUPED_BROADCAST_H
#define QK_GROUPED_BROADCAST_H

#include <string.h>

#include "kernels/grouped_by_row.h"
#include "kernels/grouped_codes.h"

enum { KR = 4, NR = NV * LANES, CODES = sizeof(vi), BYTES_SIGNED = 0, SMALL_APART = SUM_STEPS > 0 };

/* The compiler would begin a later step's work in an earlier one, and copy sums for it, or spill them. */
QK_INLINE void keep_steps_apart(vi *acc, const size_t m) { QK_UNROLL32(x, m * NV, QK_OPAQUE(acc[x]);) }

/* One step: the products of m rows and NV vectors, whose codes are at bit `shift` of their bytes. */
QK_INLINE void add_step(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *line, const size_t m, const int shift,
                        const coding in)
{
    vi codes[NV];
    __asm__ volatile("" : "+r"(line)); /* or a line would stay in registers over its steps, and sums would be spilled */
    QK_UNROLL4(j, NV, {
        codes[j] = load_codes(line + j * CODES);
        if (in.bits < 8)
            codes[j] = codes_at(codes[j], shift, (1 << in.bits) - 1);
        else
            QK_OPAQUE(codes[j]); /* or gcc would load it for each row anew */
    })
    QK_UNROLL8(i, m, {
        int32_t group;
        memcpy(&group, a + i * a_stride, sizeof group);
        const vi a_s8 = vi_set1(group);
        QK_UNROLL4(j, NV, acc[i * NV + j] = add_codes(acc[i * NV + j], codes[j], a_s8, in.small);)
    })
}

/* `lines` lines of codes, of 8 / bits steps each. */
QK_INLINE void add_lines(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *line, size_t lines, const size_t m,
                         const coding in)
{
    __asm__ volatile("" : "+r"(lines)); /* or a loop of known length would be unrolled, and its sums spilled */
    for (; lines > 0; lines--, line += NV * CODES) {
        if (!in.plain)
            prefetch_codes(line, NV * CODES);
        QK_UNROLL4(s, 8 / in.bits, {
            add_step(acc, a, a_stride, line, m, s * in.bits, in);
            a += KR;
            keep_steps_apart(acc, m);
        })
    }
}

/* All steps of a block. */
QK_INLINE void add_block(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *codes, size_t block, const size_t m,
                         const coding in)
{
#if SUM_STEPS
    if (in.small) {
        for (size_t at = 0; at < block; at += SUM_STEPS * KR) {
            vi narrow[32];
            QK_UNROLL32(x, m * NV, narrow[x] = vi_set1(0);)
            add_lines(narrow, a + at, a_stride, codes + at * NR * in.bits / 8, SUM_STEPS * in.bits / 8, m, in);
            QK_UNROLL32(x, m * NV, acc[x] = vi_add(acc[x], widened(narrow[x]));)
        }
        return;
    }
#endif
    add_lines(acc, a, a_stride, codes, block / KR * in.bits / 8, m, in);
}

#endif
