/* The sum of words in plain C: the oracle of every SIMD version. */
#include "kernels.h"

uint32_t qk_sum_u32_scalar(const uint32_t *x, size_t n)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}
