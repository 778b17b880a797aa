/* acc[m][n] += a[m][k] * b[k][n], int8 x int8 -> int32, with the sdot of ARMv8.2's dot product extension.
 *
 * sdot adds to each 32-bit lane the four products of a column's four bytes of B with four bytes of one row of A, which
 * come from a lane of a register: no broadcasts.
 *
 * Layout: kr = 4.   A panel: k 0..3 of row 0 | k 0..3 of row 1 | ...           four rows a register
 *                   B panel: k 0..3 of column 0 | ... | k 0..3 of column 11    four columns a register, three a step
 * Order: column quad by column quad, four steps a block, so that A comes in whole registers, too, m a block; each
 * register loaded AHEAD sdot before the first that needs it (kernels/neon/in_order.h). Up to three rows have further
 * sets of sums, over interleaved steps: the latency of sdot takes 12 at a time to hide where there are four pipes, and
 * a step of one row has 3.
 * Registers (8 x 12): 24 accumulators, 4 of A, 2 of B = 30. 24 sdot for 5 loads a step.
 * Overflow: acc wraps modulo 2**32; it is exact for k <= 131071, beyond which the driver splits k.
 * Tails: rows by tile bodies of 1 to 8 rows, up to three last steps by blocks of one, columns and k by the packers'
 * zeros.
 */
#include "kernels.h"
#include "kernels/neon/in_order.h"
#include "kernels/neon_dotprod/dot_lane.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

enum { MR = 8, NR = 12, KR = 4, LANES = 4, QUADS = NR / LANES, BLOCK_STEPS = 4, AHEAD = 8 };

QK_DEFINE_PACKERS(dotprod, KR, NR, 1, 1)

static inline int32_t load_group(const int8_t *a)
{
    int32_t group;
    memcpy(&group, a, sizeof group);
    return group;
}

/* A register of groups of A, four unless the block ends sooner; no byte after them is touched. */
QK_INLINE int8x16_t load_groups(const int8_t *a, const size_t count)
{
    if (count == 1)
        return vreinterpretq_s8_s32(vdupq_n_s32(load_group(a)));
    if (count < LANES) {
        int32x4_t a_s32x4 = vreinterpretq_s32_s8(vcombine_s8(vld1_s8(a), vdup_n_s8(0)));
        if (count == 3)
            a_s32x4 = vsetq_lane_s32(load_group(a + 2 * KR), a_s32x4, 2);
        return vreinterpretq_s8_s32(a_s32x4);
    }
    return load_here(a);
}

/* Load what sdot number `dot` of a block is the first to need. */
QK_INLINE void load_for(const size_t dot, int8x16_t *a_s8x16, int8x16_t *b_s8x16, const cursor *at, const size_t m,
                        const size_t steps)
{
    const size_t quad = dot / m, group = quad / QUADS * m + dot % m;
    if (quad >= steps * QUADS)
        return;
    if (dot % m == 0)
        b_s8x16[quad] = load_here(at->b + quad * LANES * KR);
    if (quad % QUADS == 0 && group % LANES == 0)
        a_s8x16[group / LANES] = load_groups(at->a + group * KR, steps * m - group);
}

/* Add the products of m rows and 12 columns over `steps` steps of kr = 4. */
QK_INLINE void add_block(int32x4_t (*acc_s32x4)[MR][QUADS], cursor *at, const size_t m, const size_t chains,
                         const size_t steps)
{
    const size_t dots = steps * QUADS * m, last_load = dots > AHEAD ? dots - AHEAD : 0;
    int8x16_t a_s8x16[MR], b_s8x16[BLOCK_STEPS * QUADS];
    QK_UNROLL8(dot, AHEAD, load_for(dot, a_s8x16, b_s8x16, at, m, steps);)
    QK_UNROLL4(s, steps, QK_UNROLL4(j, QUADS, QK_UNROLL8(i, m, {
        const size_t dot = (s * QUADS + j) * m + i, group = s * m + i;
        load_for(dot + AHEAD, a_s8x16, b_s8x16, at, m, steps);
        if (dot == last_load)
            advance_here(at, steps * m * KR, steps * NR * KR);
        dot_lane(&acc_s32x4[s % chains][i][j], b_s8x16[s * QUADS + j], a_s8x16[group / LANES], group % LANES);
    })))
}

QK_INLINE void tile_rows(const qk_gemm_tile *tile, const size_t m, const size_t chains)
{
    int32x4_t acc_s32x4[BLOCK_STEPS][MR][QUADS]; /* as far as the unrolled loops are written */
    QK_UNROLL4(c, chains, QK_UNROLL8(i, m, QK_UNROLL4(j, QUADS, acc_s32x4[c][i][j] = vdupq_n_s32(0);)))

    cursor at = first_step(tile, m * KR, NR * KR);
    at.blocks = tile->k_steps / BLOCK_STEPS;
    while (at.blocks > 0)
        add_block(acc_s32x4, &at, m, chains, BLOCK_STEPS);
    at.blocks = tile->k_steps % BLOCK_STEPS;
    while (at.blocks > 0)
        add_block(acc_s32x4, &at, m, 1, 1);

    QK_UNROLL8(i, m, QK_UNROLL4(j, QUADS, {
        QK_UNROLL4(c, chains, if (c > 0) acc_s32x4[0][i][j] = vaddq_s32(acc_s32x4[0][i][j], acc_s32x4[c][i][j]);)
        store_sums(tile, i * NR + j * LANES, acc_s32x4[0][i][j]);
    }))
}

static void run(const qk_gemm_tile *tile)
{
    QK_UNROLL8(i, MR, if (tile->m == i + 1) tile_rows(tile, i + 1, i == 0 ? 4 : i < 3 ? 2 : 1);)
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
    .mr = MR, .nr = NR, .kr = KR, .n_unit = NR, .a_bytes = 1, .a_signed = 1, .b_signed = 1,
    .pack_a = dotprod_pack_a, .pack_b = dotprod_pack_b, .run = run, .peak = peak,
};
