/* What the randomized Hadamard transform of a row needs besides its kernel. */
#ifndef QK_OPS_HADAMARD_H
#define QK_OPS_HADAMARD_H

#include "kernels.h"

/* The values that are transformed together: the largest power of two that divides k. */
static inline size_t qk_hadamard_block(size_t k) { return k & -k; }

/* factors [k], k > 0: sign / sqrt(block); without a seed all signs are +1. */
void qk_set_hadamard_factors(float *factors, size_t k, const uint64_t *seed);

#endif
