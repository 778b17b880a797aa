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
 * Order: the products of a step, column by column, go in batches of four: four smull, the ssubw2 of the columns that
 * begin, four smlsl2, four sadalp, so that no instruction waits for the one before it. What the next batch needs is
 * loaded between the smlsl2; there the last batch of a step is through with its rows of A, and the next step's take
 * their registers (kernels/neon/in_order.h).
 * Registers (4 x 4): 16 accumulators, 4 surpluses, 4 sums of two products, 4 of A, 2 of B = 30. The four lanes of an
 * accumulator are summed at the end.
 * Overflow: a surplus lane takes one byte a step and has room for 255, so it is emptied every 128 steps. acc wraps
 * modulo 2**32.
 * Tails: rows by tile bodies of 1 to 4 rows, an odd last step by a block of one, columns and k by the packers' zeros
 * (A's complemented zeros meet zeros of B).
 */
#include "kernels.h"
#include "kernels/neon/in_order.h"
#include "kernels/neon/multiply_neon.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

enum { MR = 4, NR = 4, KR = 16, BATCH = 4, BLOCK_STEPS = 2, SURPLUS_BLOCKS = 128 / BLOCK_STEPS };

QK_DEFINE_PACKERS(plain, KR, NR, 1, 1)

static void pack_a(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, size_t a_stride, int32_t *sums)
{
    plain_pack_a(src, stride, k_stride, count, k, flip, panel, a_stride, sums);
    uint8_t *group = panel;
    for (size_t i = 0; i < (k + KR - 1) / KR * count; i++, group += KR)
        vst1_u8(group + KR / 2, vmvn_u8(vld1_u8(group + KR / 2)));
}

QK_INLINE void subtract_high_product(int16x8_t *ab_s16x8, int8x16_t a_s8x16, int8x16_t b_s8x16)
{
    __asm__ volatile("smlsl2 %0.8h, %1.16b, %2.16b" : "+w"(*ab_s16x8) : "w"(a_s8x16), "w"(b_s8x16));
}

QK_INLINE void subtract_high(int16x8_t *surplus_s16x8, int8x16_t b_s8x16)
{
    __asm__ volatile("ssubw2 %0.8h, %0.8h, %1.16b" : "+w"(*surplus_s16x8) : "w"(b_s8x16));
}

/* The sums of a tile, and where its products pass through. */
typedef struct sums {
    int32x4_t acc_s32x4[MR][NR];
    int16x8_t surplus_s16x8[NR], ab_s16x8[BATCH];
} sums;

/* Product p of a block is that of column p / m and this row; both count on from step to step, as their registers. */
static inline size_t row_of(size_t p, size_t m) { return p / (NR * m) * m + p % m; }

/* Load what product number p of a block is the first to need. */
QK_INLINE void load_for(const size_t p, int8x16_t *a_s8x16, int8x16_t *b_s8x16, const cursor *at, const size_t m,
                        const size_t steps)
{
    if (p >= steps * NR * m)
        return;
    if (p % m == 0)
        b_s8x16[p / m] = load_here(at->b + p / m * KR);
    if (p / m % NR == 0)
        a_s8x16[row_of(p, m)] = load_here(at->a + row_of(p, m) * KR);
}

/* Add the products of m rows and 4 columns over `steps` steps of kr = 16. */
QK_INLINE void add_block(sums *tile, cursor *at, const size_t m, const size_t steps)
{
    int8x16_t a_s8x16[BLOCK_STEPS * MR], b_s8x16[BLOCK_STEPS * NR];
    QK_UNROLL4(p, BATCH, load_for(p, a_s8x16, b_s8x16, at, m, steps);)
    QK_UNROLL8(batch, steps * NR * m / BATCH, {
        enum { first = batch * BATCH };
        QK_UNROLL4(i, BATCH, {
            const size_t p = first + i;
            multiply_low(&tile->ab_s16x8[i], a_s8x16[row_of(p, m)], b_s8x16[p / m]);
        })
        QK_UNROLL4(i, BATCH, {
            const size_t p = first + i;
            if (p % m == 0)
                subtract_high(&tile->surplus_s16x8[p / m % NR], b_s8x16[p / m]);
        })
        QK_UNROLL4(i, BATCH, {
            const size_t p = first + i;
            subtract_high_product(&tile->ab_s16x8[i], a_s8x16[row_of(p, m)], b_s8x16[p / m]);
            load_for(p + BATCH, a_s8x16, b_s8x16, at, m, steps);
            if (p + BATCH == steps * NR * m)
                advance_here(at, steps * m * KR, steps * NR * KR);
        })
        QK_UNROLL4(i, BATCH, {
            const size_t p = first + i;
            add_pairs(&tile->acc_s32x4[p % m][p / m % NR], tile->ab_s16x8[i]);
        })
    })
}

QK_INLINE void tile_rows(const qk_gemm_tile *to, const size_t m)
{
    sums tile;
    QK_UNROLL4(i, m, QK_UNROLL4(j, NR, tile.acc_s32x4[i][j] = vdupq_n_s32(0);))
    QK_UNROLL4(i, BATCH, tile.ab_s16x8[i] = vdupq_n_s16(0);)

    cursor at = first_step(to, m * KR, NR * KR);
    size_t blocks = to->k_steps / BLOCK_STEPS;
    do {
        QK_UNROLL4(j, NR, tile.surplus_s16x8[j] = vdupq_n_s16(0);)
        at.blocks = blocks < SURPLUS_BLOCKS ? blocks : SURPLUS_BLOCKS;
        blocks -= at.blocks;
        while (at.blocks > 0)
            add_block(&tile, &at, m, BLOCK_STEPS);
        at.blocks = blocks ? 0 : to->k_steps % BLOCK_STEPS;
        while (at.blocks > 0)
            add_block(&tile, &at, m, 1);
        QK_UNROLL4(i, m, QK_UNROLL4(j, NR, {
            tile.acc_s32x4[i][j] = vpadalq_s16(tile.acc_s32x4[i][j], tile.surplus_s16x8[j]);
        }))
    } while (blocks > 0);

    QK_UNROLL4(i, m, {
        int32x4_t columns01 = vpaddq_s32(tile.acc_s32x4[i][0], tile.acc_s32x4[i][1]);
        int32x4_t columns23 = vpaddq_s32(tile.acc_s32x4[i][2], tile.acc_s32x4[i][3]);
        store_sums(to, i * NR, vpaddq_s32(columns01, columns23));
    })
}

static void run(const qk_gemm_tile *tile)
{
    QK_UNROLL8(i, MR, if (tile->m == i + 1) tile_rows(tile, i + 1);)
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
    .mr = MR, .nr = NR, .kr = KR, .n_unit = NR, .a_bytes = 1, .a_signed = 1, .b_signed = 1,
    .pack_a = pack_a, .pack_b = plain_pack_b, .run = run, .peak = peak,
};
