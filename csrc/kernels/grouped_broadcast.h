/* The multiply of weights in blocks along k on all x86 ISAs, for kernels/gemm_grouped_body.h. A kernel file
 * includes the vocabulary of its ISA, defines
 *
 *      MR, NV                             the tile: rows, and vectors of LANES columns
 *      SUM_STEPS                          steps of codes below 16 that add_codes may sum before `widened`; 0: any number
 *      add_codes(acc, codes, a, small)    acc + the products of 32 bits of A, in every lane, with such a vector
 *      widened(acc)                       with SUM_STEPS: sums of small codes as int32; codes in planes are such ones then
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
#include "kernels/unroll.h"

enum { KR = 4, NR = NV * LANES, CODES = sizeof(vi), BYTES_SIGNED = 0, SMALL_APART = SUM_STEPS > 0 };

QK_INLINE void store_two_steps(uint8_t *steps, size_t column, vi even, vi odd)
{
    store_codes(steps + column * KR, even);
    store_codes(steps + (NR + column) * KR, odd);
}

#include "kernels/grouped_planes.h"

/* 32 bits of A in every lane. */
QK_INLINE vi broadcast(const int8_t *a)
{
    int32_t group;
    memcpy(&group, a, sizeof group);
    return vi_set1(group);
}

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
        if (in.table)
            codes[j] = look_up(in.levels, codes[j]);
    })
    QK_UNROLL8(i, m, {
        const vi a_s8 = broadcast(a + i * a_stride);
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

/* One chunk of planes, whose steps of LANES columns follow each other. */
QK_INLINE void add_chunk(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *planes, const size_t m, const coding in)
{
    prefetch_codes(planes, NR * 4 * in.bits);
    QK_UNROLL4(j, NV, {
        /* Or broadcasts would stay in registers from column to column, and lookups move ahead; and sums be spilled. */
        __asm__ volatile("" : "+r"(a));
        const chunk_planes x = load_planes(planes, j * LANES, in.bits);
        vi sums[8];
        QK_UNROLL8(i, m, sums[i] = SUM_STEPS ? vi_set1(0) : acc[i * NV + j];)
        QK_UNROLL8(q, CHUNK_STEPS, {
            const vi bytes = bytes_of_planes(&x, q, in);
            QK_UNROLL8(i, m, sums[i] = add_codes(sums[i], bytes, broadcast(a + i * a_stride + q * KR), in.small);)
            QK_UNROLL8(i, m, QK_OPAQUE(sums[i]);)
        })
        QK_UNROLL8(i, m, acc[i * NV + j] = SUM_STEPS ? vi_add(acc[i * NV + j], widened(sums[i])) : sums[i];)
    })
    keep_steps_apart(acc, m);
}

/* All steps of a block. */
QK_INLINE void add_block(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *codes, size_t block, const size_t m,
                         const coding in)
{
    if (in.planes) {
        for (size_t chunks = block / CHUNK_K; chunks > 0; chunks--, a += CHUNK_K, codes += CHUNK_K * NR * in.bits / 8)
            add_chunk(acc, a, a_stride, codes, m, in);
        return;
    }
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
