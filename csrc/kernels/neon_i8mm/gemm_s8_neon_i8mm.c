/* acc[m][n] += a[m][k] * b[k][n], int8 x int8 -> int32, with the smmla of the i8mm extension.
 *
 * smmla multiplies 2 rows of 8 bytes with 2 columns of 8 bytes and adds the 2 x 2 products to four 32-bit lanes:
 *
 *      a = row 0, k 0..7 | row 1, k 0..7        acc = row 0 column 0, row 0 column 1, row 1 column 0, row 1 column 1
 *      b = column 0, k 0..7 | column 1, k 0..7
 *
 * Layout: kr = 8.   A panel: k 0..7 of row 0 | k 0..7 of row 1 | ...           a pair of rows a register
 *                   B panel: k 0..7 of column 0 | ... | k 0..7 of column 11    a pair of columns a register
 * Registers (8 x 12): 24 accumulators, 4 of A, 2 of B = 30. 24 smmla for 10 loads a step.
 * Overflow: acc wraps modulo 2**32; it is exact for k <= 131071, beyond which the driver splits k.
 * Tails: rows by tile bodies of 1 to 8 rows; the missing partner of an odd last row is zero and its sums are dropped;
 * columns and k by the packers' zeros.
 */
#include "kernels.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "compile this folder with the flags of csrc/build.py"
#endif

#include <arm_neon.h>

enum { MR = 8, NR = 12, KR = 8, ROW_PAIRS = MR / 2, COLUMN_PAIRS = NR / 2 };

QK_DEFINE_PACKERS(i8mm, KR, NR, 1, 1)

/* One step of kr = 8: add the products of m rows and 12 columns. */
QK_INLINE void add_step(int32x4_t (*acc_s32x4)[COLUMN_PAIRS], const int8_t *a, const int8_t *b, const size_t m)
{
    int8x16_t a_s8x16[ROW_PAIRS];
    QK_UNROLL4(i, m / 2, a_s8x16[i] = vld1q_s8(a + i * 2 * KR);)
    if (m % 2)
        a_s8x16[m / 2] = vcombine_s8(vld1_s8(a + (m - 1) * KR), vdup_n_s8(0));
    QK_UNROLL8(j, COLUMN_PAIRS, {
        int8x16_t b_s8x16 = vld1q_s8(b + j * 2 * KR);
        QK_UNROLL4(i, (m + 1) / 2, acc_s32x4[i][j] = vmmlaq_s32(acc_s32x4[i][j], a_s8x16[i], b_s8x16);)
        /* This emits nothing, but no load moves up across it: gcc would load all of B first, and spill. */
        if (m > 6 && j % 2)
            __asm__ volatile("" ::: "memory");
    })
}

QK_INLINE void tile_rows(const int8_t *a, const int8_t *b, const size_t m, size_t k_steps, int32_t *tile)
{
    int32x4_t acc_s32x4[ROW_PAIRS][COLUMN_PAIRS];
    QK_UNROLL4(i, (m + 1) / 2, QK_UNROLL8(j, COLUMN_PAIRS, acc_s32x4[i][j] = vdupq_n_s32(0);))

    for (; k_steps > 0; k_steps--, a += m * KR, b += NR * KR)
        add_step(acc_s32x4, a, b, m);

    QK_UNROLL4(i, (m + 1) / 2, QK_UNROLL8(j, COLUMN_PAIRS, {
        vst1_s32(tile + 2 * i * NR + 2 * j, vget_low_s32(acc_s32x4[i][j]));
        if (2 * i + 1 < m)
            vst1_s32(tile + (2 * i + 1) * NR + 2 * j, vget_high_s32(acc_s32x4[i][j]));
    }))
}

static void run(const void *a, const void *b, size_t m, size_t k_steps, int32_t *tile)
{
    QK_UNROLL8(i, MR, if (m == i + 1) tile_rows(a, b, i + 1, k_steps, tile);)
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
    .mr = MR, .nr = NR, .kr = KR, .a_bytes = 1, .a_signed = 1, .b_signed = 1,
    .pack_a = i8mm_pack_a, .pack_b = i8mm_pack_b, .run = run, .peak = peak,
};
