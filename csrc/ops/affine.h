/* What other drivers take from that of the elementwise operations. */
#ifndef QK_OPS_AFFINE_H
#define QK_OPS_AFFINE_H

#include "qkernels.h"

/* qk_dynamic_quantize of one row of n values, cut into blocks that have a scale each: for tasks, on any thread. */
qk_status qk_dynamic_quantize_row(const float *x, size_t n, size_t block, qk_qtype type, qk_scheme scheme, uint8_t *q,
                                  float *scale, int32_t *zero_point);

#endif
