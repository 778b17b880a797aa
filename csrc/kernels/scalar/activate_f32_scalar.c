/* The smooth activations in plain C: the oracle of every SIMD version. */
#include "activation.h"
#include "kernels.h"

void qk_gelu_f32_scalar(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = qk_gelu(x[i]);
}

void qk_silu_f32_scalar(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = qk_silu(x[i]);
}
