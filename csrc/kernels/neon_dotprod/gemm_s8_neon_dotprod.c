/* acc[m][n] += a[m][k] * b[k][n], int8 x int8 -> int32, with the sdot of ARMv8.2's dot product extension.
 *
 * sdot adds to each 32-bit lane the four products of a column's four bytes of B with four bytes of one row of A, which
 * come from a lane of a register: no broadcasts.
 *
 * Layout: kr = 4.   A panel: k 0..3 of row 0 | k 0..3 of row 1 | ...           four rows a register
 *                   B panel: k 0..3 of column 0 | ... | k 0..3 of column 11    four columns a register, three a step
 * Registers (8 x 12): 24 accumulators, 2 of A, 3 of B = 29. 24 sdot for 5 loads a step.
 * Overflow: acc wraps modulo 2**32; it is exact for k <= 131071, beyond which the driver splits k.
 * Tails: rows by tile bodies of 1 to 8 rows, columns and k by the packers' zeros.
 */
#include "kernels.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile this folder with the flags of csrc/build.py"
#endif

#include <arm_neon.h>

enum { MR = 8, NR = 12, KR = 4, LANES = 4, GROUPS = NR / LANES };

QK_DEFINE_PACKERS(dotprod, KR, NR, 1, 1)

static inline int32_t load_group(const int8_t *a)
{
    int32_t group;
    memcpy(&group, a, sizeof group);
    return group;
}

/* One step of `rows` rows, at most 4, from a on, touching no byte after them. */
QK_INLINE int8x16_t load_rows(const int8_t *a, const size_t rows)
{
    if (rows == 1)
        return vreinterpretq_s8_s32(vdupq_n_s32(load_group(a)));
    if (rows < 4) {
        int32x4_t a_s32x4 = vreinterpretq_s32_s8(vcombine_s8(vld1_s8(a), vdup_n_s8(0)));
        if (rows == 3)
            a_s32x4 = vsetq_lane_s32(load_group(a + 2 * KR), a_s32x4, 2);
        return vreinterpretq_s8_s32(a_s32x4);
    }
    return vld1q_s8(a);
}

/* One step of kr = 4: add the products of m rows and 12 columns. */
QK_INLINE void add_step(int32x4_t (*acc_s32x4)[GROUPS], const int8_t *a, const int8_t *b, const size_t m)
{
    const size_t upper = m > 4 ? m - 4 : 0;
    int8x16_t a0_s8x16 = load_rows(a, m - upper);
    int8x16_t a4_s8x16 = upper ? load_rows(a + 4 * KR, upper) : a0_s8x16;
    QK_UNROLL4(j, GROUPS, {
        int8x16_t b_s8x16 = vld1q_s8(b + j * LANES * KR);
        QK_UNROLL4(i, m, acc_s32x4[i][j] = vdotq_laneq_s32(acc_s32x4[i][j], b_s8x16, a0_s8x16, i);)
        QK_UNROLL4(i, upper, acc_s32x4[i + 4][j] = vdotq_laneq_s32(acc_s32x4[i + 4][j], b_s8x16, a4_s8x16, i);)
    })
}

QK_INLINE void tile_rows(const int8_t *a, const int8_t *b, const size_t m, size_t k_steps, int32_t *tile)
{
    int32x4_t acc_s32x4[MR][GROUPS];
    QK_UNROLL8(i, m, QK_UNROLL4(j, GROUPS, acc_s32x4[i][j] = vdupq_n_s32(0);))

    for (; k_steps > 0; k_steps--, a += m * KR, b += NR * KR)
        add_step(acc_s32x4, a, b, m);

    QK_UNROLL8(i, m, QK_UNROLL4(j, GROUPS, vst1q_s32(tile + i * NR + j * LANES, acc_s32x4[i][j]);))
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
        QK_UNROLL16(c, PARALLEL, acc_s32x4[c] = vdotq_laneq_s32(acc_s32x4[c], x_s8x16, x_s8x16, 0);)
    }
    QK_UNROLL16(c, PARALLEL, QK_OPAQUE(acc_s32x4[c]);)
    return rounds * PARALLEL * 4 * KR;
}

qk_gemm_s8_type qk_gemm_s8_neon_dotprod = {
    .mr = MR, .nr = NR, .kr = KR, .a_bytes = 1, .a_signed = 1, .b_signed = 1,
    .pack_a = dotprod_pack_a, .pack_b = dotprod_pack_b, .run = run, .peak = peak,
};
