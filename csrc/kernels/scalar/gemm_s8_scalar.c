/* acc[m][n] += a[m][k] * b[k][n], int8 x int8 -> int32, in plain C: the fallback and the oracle.
 *
 * Layout: kr = 1, so a panel of A is [k][m] and one of B is [k][16]. The 4 x 16 tile lets a compiler keep the sums in
 * vector registers of the baseline ISA. Sums wrap modulo 2**32 (unsigned arithmetic).
 */
#include "kernels.h"
#include "kernels/pack_panel.h"
#include "kernels/unroll.h"

enum { MR = 4, NR = 16 };

QK_DEFINE_PACKERS(scalar, 1, NR, 1, 1)

static inline void tile_rows(const qk_gemm_tile *tile, const size_t m)
{
    const int8_t *a = (const int8_t *)tile->a + tile->first_step * m;
    const int8_t *b = (const int8_t *)tile->b + tile->first_step * NR;
    uint32_t acc[MR][NR] = {{0}};
    for (size_t k = 0; k < tile->k_steps; k++, a += m, b += NR)
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < NR; j++)
                acc[i][j] += (uint32_t)((int32_t)a[i] * b[j]);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < NR; j++) {
            int32_t *sum = tile->sums + i * NR + j;
            *sum = (int32_t)((tile->accumulate ? (uint32_t)*sum : 0) + acc[i][j]);
        }
}

static void run(const qk_gemm_tile *tile)
{
    QK_UNROLL8(i, MR, if (tile->m == i + 1) tile_rows(tile, i + 1);)
}

/* Plain C has no instruction of its own: the tile itself, with everything in the L1 cache. */
static uint64_t peak(uint64_t rounds)
{
    enum { K = 256 };
    uint8_t a[K * MR] = {1}, b[K * NR] = {1};
    int32_t sums[MR * NR];
    const qk_gemm_tile tile = {.a = a, .b = b, .m = MR, .n = NR, .k_steps = K, .sums = sums};
    for (uint64_t r = 0; r < rounds; r++) {
        run(&tile);
        __asm__ volatile("" : : "r"(a), "r"(b), "r"(sums) : "memory"); /* all three may be read and changed here */
    }
    return rounds * K * MR * NR;
}

qk_gemm_s8_type qk_gemm_s8_scalar = {
    .mr = MR, .nr = NR, .kr = 1, .n_unit = NR, .a_bytes = 1, .a_signed = 1, .b_signed = 1,
    .pack_a = scalar_pack_a, .pack_b = scalar_pack_b, .run = run, .peak = peak,
};
