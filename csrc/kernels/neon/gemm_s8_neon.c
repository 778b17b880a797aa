/* acc[m][n] += a[m][k] * b[k][n], int8 x int8 -> int32, exact on ARMv8.0.
 *
 * Trick: the cheapest byte product is smull, smlal2, sadalp: two products meet in int16, then pairs of those in int32.
 * But int16 does not hold (-128 * -128) * 2. So the packer complements the upper eight bytes of each group of A, and
 * smlsl2 subtracts: with ~a = -1 - a,
 *
 *      a0 * b0 - ~a1 * b1  =  a0 * b0 + a1 * b1 + b1
 *
 * whose extremes are +-32640: no overflow, for any int8. The surplus, the sum of b1 over k, costs one ssubw2 per step
 * and column: 13 instructions for the 64 products of a column with four rows, where smull, smull2 and two sadalp
 * take 16. A Cortex-A72 is bound by its one multiply pipe either way; in-order cores are bound by the count.
 *
 * Layout: kr = 16.  A panel: k 0..7, ~k 8..15 of row 0 | ... of row 1 | ...      B panel: k 0..15 of column 0 | ...
 * Registers (4 x 4): 16 accumulators, 4 surpluses, 4 of A, 1 of B, 4 products = 29. The four lanes of an accumulator
 * are summed at the end.
 * Overflow: a surplus lane takes one byte a step, so it is emptied every 128 steps. acc wraps modulo 2**32.
 * Tails: rows by tile bodies of 1 to 4 rows, columns and k by the packers' zeros (A's complemented zeros meet zeros
 * of B).
 */
#include "kernels.h"
#include "kernels/neon/simd_neon.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

enum { MR = 4, NR = 4, KR = 16, SURPLUS_STEPS = 128 };

QK_DEFINE_PACKERS(plain, KR, NR, 1, 1)

static void pack_a(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, int32_t *sums)
{
    plain_pack_a(src, stride, k_stride, count, k, flip, panel, sums);
    uint8_t *group = panel;
    for (size_t i = 0; i < (k + KR - 1) / KR * count; i++, group += KR)
        vst1_u8(group + KR / 2, vmvn_u8(vld1_u8(group + KR / 2)));
}

/* One step of kr = 16: add the products of m rows and 4 columns. */
QK_INLINE void add_step(int32x4_t (*acc_s32x4)[NR], int16x8_t *surplus_s16x8, const int8_t *a, const int8_t *b,
                        const size_t m)
{
    int8x16_t a_s8x16[MR];
    QK_UNROLL4(i, m, a_s8x16[i] = vld1q_s8(a + i * KR);)
    QK_UNROLL4(j, NR, {
        int8x16_t b_s8x16 = vld1q_s8(b + j * KR);
        int16x8_t ab_s16x8[MR];
        QK_UNROLL4(i, m, ab_s16x8[i] = vmull_s8(vget_low_s8(a_s8x16[i]), vget_low_s8(b_s8x16));)
        surplus_s16x8[j] = vsubw_high_s8(surplus_s16x8[j], b_s8x16);
        QK_UNROLL4(i, m, ab_s16x8[i] = vmlsl_high_s8(ab_s16x8[i], a_s8x16[i], b_s8x16);)
        QK_UNROLL4(i, m, acc_s32x4[i][j] = vpadalq_s16(acc_s32x4[i][j], ab_s16x8[i]);)
        /* These emit nothing, but the next load waits for this column: gcc would start all columns at once, and
         * spill. With one or two rows it has the registers. */
        if (m > 2) {
            QK_UNROLL4(i, m, __asm__("" : "+r"(b) : "w"(acc_s32x4[i][j]));)
        }
    })
}

QK_INLINE void tile_rows(const int8_t *a, const int8_t *b, const size_t m, size_t k_steps, int32_t *tile)
{
    int32x4_t acc_s32x4[MR][NR];
    QK_UNROLL4(i, m, QK_UNROLL4(j, NR, acc_s32x4[i][j] = vdupq_n_s32(0);))

    while (k_steps > 0) {
        size_t steps = k_steps < SURPLUS_STEPS ? k_steps : SURPLUS_STEPS;
        k_steps -= steps;
        int16x8_t surplus_s16x8[NR];
        QK_UNROLL4(j, NR, surplus_s16x8[j] = vdupq_n_s16(0);)
        for (; steps > 0; steps--, a += m * KR, b += NR * KR)
            add_step(acc_s32x4, surplus_s16x8, a, b, m);
        QK_UNROLL4(i, m, QK_UNROLL4(j, NR, acc_s32x4[i][j] = vpadalq_s16(acc_s32x4[i][j], surplus_s16x8[j]);))
    }

    QK_UNROLL4(i, m, {
        int32x4_t columns01 = vpaddq_s32(acc_s32x4[i][0], acc_s32x4[i][1]);
        int32x4_t columns23 = vpaddq_s32(acc_s32x4[i][2], acc_s32x4[i][3]);
        vst1q_s32(tile + i * NR, vpaddq_s32(columns01, columns23));
    })
}

static void run(const void *a, const void *b, size_t m, size_t k_steps, int32_t *tile)
{
    QK_UNROLL8(i, MR, if (m == i + 1) tile_rows(a, b, i + 1, k_steps, tile);)
}

static uint64_t peak(uint64_t rounds)
{
    enum { PARALLEL = 8 };
    int8x16_t x_s8x16 = vdupq_n_s8(1);
    int32x4_t acc_s32x4[PARALLEL];
    QK_UNROLL8(c, PARALLEL, acc_s32x4[c] = vdupq_n_s32(0);)
    for (uint64_t r = 0; r < rounds; r++) {
        QK_UNROLL8(c, PARALLEL, {
            QK_OPAQUE(x_s8x16); /* or the product would be taken out of the loop */
            int16x8_t xx_s16x8 = vmull_s8(vget_low_s8(x_s8x16), vget_low_s8(x_s8x16));
            acc_s32x4[c] = vpadalq_s16(acc_s32x4[c], vmlsl_high_s8(xx_s16x8, x_s8x16, x_s8x16));
        })
    }
    QK_UNROLL8(c, PARALLEL, QK_OPAQUE(acc_s32x4[c]);)
    return rounds * PARALLEL * KR;
}

qk_gemm_s8_type qk_gemm_s8_neon = {
    .mr = MR, .nr = NR, .kr = KR, .a_bytes = 1, .a_signed = 1, .b_signed = 1,
    .pack_a = pack_a, .pack_b = plain_pack_b, .run = run, .peak = peak,
};
