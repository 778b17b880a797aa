/* Types, scales and zero points that the checks of affine quantization share. */
#ifndef CHECK_AFFINE_PARAMETERS_H
#define CHECK_AFFINE_PARAMETERS_H

#include "harness.h"

typedef struct affine_type {
    const char *name;
    qk_qtype type;
} affine_type;

enum { AFFINE_TYPE_COUNT = 6, BYTE_TYPE_COUNT = 2 /* the first ones */ };
extern const affine_type affine_types[AFFINE_TYPE_COUNT];

/* n of them, read-only at the case's guard page. */
const float *place_scales(size_t n);
const int32_t *place_zero_points(size_t n, qk_qtype type);

#endif
