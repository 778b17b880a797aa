/* The product of matrices of signs in plain C: the oracle of every SIMD version. */
#include "kernels.h"

enum { MR = 4, NR = 4 };

static void run(const qk_b1_tile *tile)
{
    for (size_t i = 0; i < tile->m; i++)
        for (size_t j = 0; j < NR; j++) {
            int32_t *out = tile->out + i * tile->out_stride + j, count = 0;
            for (size_t w = 0; w < tile->words; w++)
                count += __builtin_popcount(tile->a[i * tile->a_stride + w] ^ tile->b[w * NR + j]);
            *out = (tile->accumulate ? *out : tile->start) - 2 * count;
        }
}

qk_gemm_b1_type qk_gemm_b1_scalar = {.mr = MR, .nr = NR, .running = 0, .run = run};
