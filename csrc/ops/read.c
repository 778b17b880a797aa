/* Reading memory and nothing else: the bandwidth that benchmarks of products with few rows compare with. */
#include "kernels.h"

_Static_assert(QK_READ_BLOCK == QK_SUM_BLOCK * sizeof(uint32_t), "whole blocks");

uint32_t qk_read_loop(const void *data, size_t bytes, uint64_t rounds)
{
    uint32_t sum = 0;
    for (uint64_t r = 0; r < rounds; r++)
        sum += qk_kernels.sum_u32(data, bytes / sizeof(uint32_t));
    return sum;
}
