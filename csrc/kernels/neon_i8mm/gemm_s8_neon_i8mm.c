/* acc[m][n] += a[m][k] * b[k][n], int8 x int8 -> int32, with the smmla of the i8mm extension.
 *
 * smmla multiplies 2 rows of 8 bytes with 2 columns of 8 bytes and adds the 2 x 2 products to four 32-bit lanes:
 *
 *      a = row 0, k 0..7 | row 1, k 0..7        acc = row 0 column 0, row 0 column 1, row 1 column 0, row 1 column 1
 *      b = column 0, k 0..7 | column 1, k 0..7
 *
 * Layout: kr = 8.   A panel: k 0..7 of row 0 | k 0..7 of row 1 | ...           a pair of rows a register
 *                   B panel: k 0..7 of column 0 | ... | k 0..7 of column 11    a pair of columns a register
 * Order: column pair by column pair, two steps a block, each register loaded AHEAD smmla before the first that needs
 * it (kernels/neon/in_order.h). One or two rows have a second set of sums, for odd steps: the latency of smmla takes
 * 12 at a time to hide where there are four pipes, and a step has 6.
 * Registers (8 x 12): 24 accumulators, 5 of A, 2 of B = 31. 24 smmla for 10 loads a step.
 * Overflow: acc wraps modulo 2**32; it is exact for k <= 131071, beyond which the driver splits k.
 * Tails: rows by tile bodies of 1 to 8 rows; the missing partner of an odd last row is zero and its sums are dropped;
 * an odd last step by a block of one; columns and k by the packers' zeros.
 */
#include "kernels.h"
#include "kernels/neon/in_order.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "compile this folder with the flags of csrc/build.py"
#endif

enum { MR = 8, NR = 12, KR = 8, MAX_ROW_PAIRS = MR / 2, COLUMN_PAIRS = NR / 2, BLOCK_STEPS = 2, AHEAD = 4 };

QK_DEFINE_PACKERS(i8mm, KR, NR, 1, 1)

/* acc += the products of two rows and two columns. */
QK_INLINE void multiply_pairs(int32x4_t *acc_s32x4, int8x16_t a_s8x16, int8x16_t b_s8x16)
{
    __asm__ volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(*acc_s32x4) : "w"(a_s8x16), "w"(b_s8x16));
}

/* Load what smmla number p of a block is the first to need. */
QK_INLINE void load_for(const size_t p, int8x16_t *a_s8x16, int8x16_t *b_s8x16, const cursor *at, const size_t m,
                        const size_t steps)
{
    const size_t row_pairs = (m + 1) / 2, i = p % row_pairs, j = p / row_pairs, step = j / COLUMN_PAIRS;
    if (step >= steps)
        return;
    if (i == 0)
        b_s8x16[j] = load_here(at->b + j * 2 * KR);
    if (j % COLUMN_PAIRS == 0) {
        const int8_t *rows = at->a + (step * m + 2 * i) * KR;
        a_s8x16[step * row_pairs + i] = 2 * i + 1 < m ? load_here(rows) : vcombine_s8(vld1_s8(rows), vdup_n_s8(0));
    }
}

/* Add the products of m rows and 12 columns over `steps` steps of kr = 8. */
QK_INLINE void add_block(int32x4_t (*acc_s32x4)[MAX_ROW_PAIRS][COLUMN_PAIRS], cursor *at, const size_t m,
                         const size_t chains, const size_t steps)
{
    const size_t row_pairs = (m + 1) / 2, count = steps * COLUMN_PAIRS * row_pairs;
    int8x16_t a_s8x16[BLOCK_STEPS * MAX_ROW_PAIRS], b_s8x16[BLOCK_STEPS * COLUMN_PAIRS];
    QK_UNROLL4(p, AHEAD, load_for(p, a_s8x16, b_s8x16, at, m, steps);)
    QK_UNROLL4(s, steps, QK_UNROLL8(j, COLUMN_PAIRS, QK_UNROLL4(i, row_pairs, {
        const size_t p = (s * COLUMN_PAIRS + j) * row_pairs + i;
        load_for(p + AHEAD, a_s8x16, b_s8x16, at, m, steps);
        if (p + AHEAD == count)
            advance_here(at, steps * m * KR, steps * NR * KR);
        multiply_pairs(&acc_s32x4[s % chains][i][j], a_s8x16[s * row_pairs + i], b_s8x16[p / row_pairs]);
    })))
}

/* Two sums to place `at`. */
static inline void store_pair(const qk_gemm_tile *tile, size_t at, int32x2_t sums)
{
    int32_t *place = tile->sums + at;
    vst1_s32(place, tile->accumulate ? vadd_s32(vld1_s32(place), sums) : sums);
}

QK_INLINE void tile_rows(const qk_gemm_tile *tile, const size_t m)
{
    const size_t row_pairs = (m + 1) / 2, chains = m > 2 ? 1 : 2;
    int32x4_t acc_s32x4[4][MAX_ROW_PAIRS][COLUMN_PAIRS]; /* as far as the unrolled loops are written */
    QK_UNROLL4(c, chains, QK_UNROLL4(i, row_pairs, QK_UNROLL8(j, COLUMN_PAIRS, {
        acc_s32x4[c][i][j] = vdupq_n_s32(0);
    })))

    cursor at = first_step(tile, m * KR, NR * KR);
    at.blocks = tile->k_steps / BLOCK_STEPS;
    while (at.blocks > 0)
        add_block(acc_s32x4, &at, m, chains, BLOCK_STEPS);
    at.blocks = tile->k_steps % BLOCK_STEPS;
    while (at.blocks > 0)
        add_block(acc_s32x4, &at, m, 1, 1);

    QK_UNROLL4(i, row_pairs, QK_UNROLL8(j, COLUMN_PAIRS, {
        if (chains == 2)
            acc_s32x4[0][i][j] = vaddq_s32(acc_s32x4[0][i][j], acc_s32x4[1][i][j]);
        store_pair(tile, 2 * i * NR + 2 * j, vget_low_s32(acc_s32x4[0][i][j]));
        if (2 * i + 1 < m)
            store_pair(tile, (2 * i + 1) * NR + 2 * j, vget_high_s32(acc_s32x4[0][i][j]));
    }))
}

static void run(const qk_gemm_tile *tile)
{
    QK_UNROLL8(i, MR, if (tile->m == i + 1) tile_rows(tile, i + 1);)
}

static uint64_t peak(uint64_t rounds)
{
    enum { PARALLEL = 16 }; /* more than latency times pipes */
    int8x16_t x_s8x16 = vdupq_n_s8(1);
    int32x4_t acc_s32x4[PARALLEL];
    QK_UNROLL16(c, PARALLEL, {
        acc_s32x4[c] = vdupq_n_s32(0);
        QK_OPAQUE(acc_s32x4[c]); /* or the compiler would see that all are equal */
    })
    for (uint64_t r = 0; r < rounds; r++) {
        QK_UNROLL16(c, PARALLEL, acc_s32x4[c] = vmmlaq_s32(acc_s32x4[c], x_s8x16, x_s8x16);)
    }
    QK_UNROLL16(c, PARALLEL, QK_OPAQUE(acc_s32x4[c]);)
    return rounds * PARALLEL * 4 * KR;
}

qk_gemm_s8_type qk_gemm_s8_neon_i8mm = {
    .mr = MR, .nr = NR, .kr = KR, .n_unit = NR, .a_bytes = 1, .a_signed = 1, .b_signed = 1,
    .pack_a = i8mm_pack_a, .pack_b = i8mm_pack_b, .run = run, .peak = peak,
};
