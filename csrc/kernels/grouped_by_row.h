/* For kernels/gemm_grouped_body.h, where a register of sums belongs to one row and LANES columns. */
#ifndef QK_GROUPED_BY_ROW_H
#define QK_GROUPED_BY_ROW_H

#include "kernels.h"

enum { ROWS = 1 };

QK_INLINE vi load_terms(const int32_t *terms, size_t row_blocks, size_t rows)
{
    (void)row_blocks, (void)rows;
    return vi_set1(*terms);
}

QK_INLINE vi spread_zeros(vi zeros, size_t part)
{
    (void)part;
    return zeros;
}

QK_INLINE vi sums_of_row(const vi *acc, size_t i, size_t j) { return acc[i * NV + j]; }

#endif
