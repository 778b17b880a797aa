/* What x goes through before a product with a weight that was rotated, or divided by input scales. */
#ifndef QK_OPS_LINEAR_INPUTS_H
#define QK_OPS_LINEAR_INPUTS_H

#include "kernels.h"

typedef struct qk_transform {
    size_t k;
    const float *scales;  /* [k], or NULL */
    const float *factors; /* [k], of qk_set_hadamard_factors, or NULL where nothing is rotated */
} qk_transform;

/* y = rotation(2**-exponent * x * scales) of one row. exponent is 0 if the largest value to rotate is within [2**-100,
 * 2**100), so that nothing can overflow, nor be lost below the normal numbers; else it brings this value to [0.5, 1].
 * QK_NOT_FINITE where x has a NaN or an infinity. */
qk_status qk_transform_row(const qk_transform *t, const float *x, float *y, int32_t *exponent);

#endif
