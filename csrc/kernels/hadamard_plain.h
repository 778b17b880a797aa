/* The Walsh-Hadamard transform in plain C: the scalar kernel, and blocks shorter than a vector of the others. The order
 * of operations is that of qk_hadamard_f32_type. */
#ifndef QK_HADAMARD_PLAIN_H
#define QK_HADAMARD_PLAIN_H

#include "kernels.h"

static inline void hadamard_plain(const float *x, size_t n, size_t block, const float *factors, int after, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = after ? x[i] : x[i] * factors[i];
    for (size_t d = 1; d < block; d *= 2)
        for (size_t pairs = 0; pairs < n; pairs += 2 * d)
            for (size_t i = pairs; i < pairs + d; i++) {
                const float a = y[i], b = y[i + d];
                y[i] = a + b;
                y[i + d] = a - b;
            }
    for (size_t i = 0; after && i < n; i++)
        y[i] *= factors[i];
}

#endif
