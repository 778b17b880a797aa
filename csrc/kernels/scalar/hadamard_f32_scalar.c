#include "kernels/hadamard_plain.h"

void qk_hadamard_f32_scalar(const float *x, size_t n, size_t block, const float *factors, int after, float *y)
{
    hadamard_plain(x, n, block, factors, after, y);
}
