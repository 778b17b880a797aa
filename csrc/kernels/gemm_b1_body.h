/* The product of matrices of signs, once for all SIMD ISAs (see affine_f32_body.h):
 *
 *      out[i][j] = start - 2 * count,      count = the ones of a[i] ^ b[j]
 *
 * A kernel file includes its vocabulary, defines
 *
 *      MR, NV                      the tile: rows, and vectors of LANES columns
 *      RUNNING                     whether the words come as running xors, see below
 *      FLUSH                       how many steps of four words `part` may take, lest its counts overflow
 *      add_counts(part, x)         part + the ones of x, in lanes of any width
 *      lane_sums(part)             the sums of such counts over each lane of 32 bits
 *      carry(before, p1, p2)       where RUNNING
 *
 * and includes this file. The layout puts columns into lanes, so that nothing is added across lanes, and a count is
 * where it belongs in the output:
 *
 *      panel of B:      word 0 of columns 0 ... NR - 1 | word 1 of columns 0 ... NR - 1 | ...
 *      row of A:        word 0 | word 1 | ...                 each broadcast from memory
 *
 * Why running xors: counting is dearer than logic. With x = a ^ b, a full adder of bits makes of x1, x2 and a bit kept
 * from before, s, the sum s' = s ^ x1 ^ x2, and a carry worth two, which alone is counted: half as often. s' is the xor
 * of all words so far; xor being linear, it is A[w] ^ B[w], where A[w] = a[0] ^ ... ^ a[w] is what the packer left.
 * So two words cost two xors, which give p1 and p2 = s', and one majority of s, s ^ p1 and p1 ^ p2:
 *
 *      count = 2 * ones of all carries + ones of the last s
 *
 * Tails: tiles of every height; columns by whole panels; words in fours, by the packer's zeros: two pairs a step, in
 * turns of the registers of s, without which it would be moved back with every step.
 * Overflow: a count is at most 32 * words, which fits 31 bits since k does.
 */
#ifndef QK_GEMM_B1_BODY_H
#define QK_GEMM_B1_BODY_H

#include "kernels.h"
#include "kernels/unroll.h"

enum { NR = NV * LANES };

/* Two words further; `before` is the sum bit of the words so far. */
QK_INLINE vi add_pair(vi part, vi *before, vi x1, vi x2)
{
#if RUNNING
    vi carried = carry(*before, x1, x2);
    *before = x2;
    return add_counts(part, carried);
#else
    (void)before;
    return add_counts(add_counts(part, x1), x2);
#endif
}

QK_INLINE void store_rows(const qk_b1_tile *tile, const vi *twice_count, const size_t m, const int accumulate)
{
    QK_UNROLL8(i, m, {
        int32_t *out = tile->out + i * tile->out_stride;
        QK_UNROLL4(j, NV, {
            const vi start = accumulate ? vi_load(out + j * LANES) : vi_set1(tile->start);
            vi_store(out + j * LANES, vi_sub(start, twice_count[i * NV + j]));
        })
    })
}

QK_INLINE void run_rows(const qk_b1_tile *tile, const size_t m)
{
    const size_t a_stride = tile->a_stride;
    const int32_t *a = (const int32_t *)tile->a, *b = (const int32_t *)tile->b;
    vi total[16], part[16], before[16];
    QK_UNROLL16(x, m * NV, total[x] = before[x] = vi_set1(0);)
    for (size_t left = tile->words / 4, steps; left > 0; left -= steps) {
        steps = left < FLUSH ? left : FLUSH;
        QK_UNROLL16(x, m * NV, part[x] = vi_set1(0);)
        for (size_t s = 0; s < steps; s++, a += 4, b += 4 * NR) {
            QK_UNROLL4(pair, 2, {
                const int32_t *a_pair = a + 2 * pair, *b_pair = b + 2 * pair * NR;
                QK_UNROLL8(i, m, {
                    const vi a1 = vi_set1(a_pair[i * a_stride]), a2 = vi_set1(a_pair[i * a_stride + 1]);
                    QK_UNROLL4(j, NV, {
                        const size_t x = i * NV + j;
                        part[x] = add_pair(part[x], &before[x], vi_xor(a1, vi_load(b_pair + j * LANES)),
                                           vi_xor(a2, vi_load(b_pair + NR + j * LANES)));
                        QK_OPAQUE(part[x]);
                    })
                })
            })
        }
        QK_UNROLL16(x, m * NV, total[x] = vi_add(total[x], lane_sums(part[x]));)
    }
    QK_UNROLL16(x, m * NV, {
        if (RUNNING)
            total[x] = vi_add(vi_add(total[x], total[x]), lane_sums(add_counts(vi_set1(0), before[x])));
        total[x] = vi_add(total[x], total[x]);
    })
    if (tile->accumulate)
        store_rows(tile, total, m, 1);
    else
        store_rows(tile, total, m, 0);
}

static void run(const qk_b1_tile *tile)
{
    switch (tile->m) {
#define ROWS_CASE(rows)                                                                                      \
    case rows:                                                                                               \
        if (rows <= MR)                                                                                      \
            run_rows(tile, rows <= MR ? rows : 1);                                                           \
        break;
        ROWS_CASE(1)
        ROWS_CASE(2)
        ROWS_CASE(3)
        ROWS_CASE(4)
        ROWS_CASE(5)
        ROWS_CASE(6)
        ROWS_CASE(7)
        ROWS_CASE(8)
#undef ROWS_CASE
    }
}

#define QK_DEFINE_GEMM_B1(isa)                                                                               \
    qk_gemm_b1_type qk_gemm_b1_##isa = {.mr = MR, .nr = NR, .running = RUNNING, .run = run};

#endif
