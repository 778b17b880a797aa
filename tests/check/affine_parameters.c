#include "affine_parameters.h"

#include <math.h>

const affine_type affine_types[AFFINE_TYPE_COUNT] = {
    {"int8", {-128, 127, 1}}, {"uint8", {0, 255, 0}}, {"int4", {-8, 7, 1}},
    {"uint4", {0, 15, 0}},    {"int2", {-2, 1, 1}},   {"uint2", {0, 3, 0}},
};

static buffer scale_buffer = {.name = "scale"}, zero_point_buffer = {.name = "zero_point"};

static float random_scale(void)
{
    switch (random_below(6)) {
    case 0: return ldexpf(1.0f, random_int(-6, 6)); /* ties are exact */
    case 1: return 0x1p-126f;
    case 2: return float_of_bits(1 + (uint32_t)random_below(1000)); /* denormal */
    case 3: return random_float(0x1p120f, 0x1p127f);
    default: return random_float(1e-4f, 2.0f);
    }
}

const float *place_scales(size_t n)
{
    float *scale = place(&scale_buffer, n, sizeof *scale);
    for (size_t i = 0; i < n; i++)
        scale[i] = random_scale();
    freeze(&scale_buffer);
    return scale;
}

const int32_t *place_zero_points(size_t n, qk_qtype type)
{
    int32_t *zero_point = place(&zero_point_buffer, n, sizeof *zero_point);
    for (size_t i = 0; i < n; i++) {
        const int32_t choices[] = {type.qmin, type.qmax, (type.qmin + type.qmax + 1) / 2,
                                   random_int(type.qmin, type.qmax)};
        zero_point[i] = choices[random_below(4)];
    }
    freeze(&zero_point_buffer);
    return zero_point;
}
