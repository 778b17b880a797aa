/* What the scalar kernels of quantize, dequantize and fake_quantize are compared with. */
#ifndef CHECK_PLAIN_AFFINE_H
#define CHECK_PLAIN_AFFINE_H

#include "kernels.h"

#include <math.h>

/* The float32 quotient, rounded half to even in double, shifted, and clamped last. */
static inline int32_t plain_quantized(float x, float scale, int32_t zero_point, qk_qtype type)
{
    double q = rint((double)(x / scale)) + zero_point;
    return (int32_t)(q < type.qmin ? type.qmin : q > type.qmax ? type.qmax : q);
}

/* The product is exact in double, so it is rounded once. */
static inline float plain_real(int32_t q, float scale, int32_t zero_point)
{
    return (float)((double)(q - zero_point) * (double)scale);
}

/* c: the index of the scale and zero point of value i. */
#define DEFINE_PLAIN(form, c)                                                                      \
    static int plain_quantize##form(const float *x, size_t n, const float *scale,                  \
                                    const int32_t *zero_point, qk_qtype type, uint8_t *q)          \
    {                                                                                              \
        int nan = 0;                                                                               \
        for (size_t i = 0; i < n; i++)                                                             \
            if (isnan(x[i]))                                                                       \
                nan = 1;                                                                           \
            else                                                                                   \
                q[i] = (uint8_t)plain_quantized(x[i], scale[c], zero_point[c], type);              \
        return nan;                                                                                \
    }                                                                                              \
    static int plain_fake_quantize##form(const float *x, size_t n, const float *scale,             \
                                         const int32_t *zero_point, qk_qtype type, float *y)       \
    {                                                                                              \
        int nan = 0;                                                                               \
        for (size_t i = 0; i < n; i++)                                                             \
            if (isnan(x[i]))                                                                       \
                nan = 1;                                                                           \
            else                                                                                   \
                y[i] = plain_real(plain_quantized(x[i], scale[c], zero_point[c], type), scale[c],  \
                                  zero_point[c]);                                                  \
        return nan;                                                                                \
    }                                                                                              \
    static void plain_dequantize##form(const uint8_t *q, size_t n, const float *scale,             \
                                       const int32_t *zero_point, int is_signed, float *x)         \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            int32_t value = is_signed && q[i] > 127 ? q[i] - 256 : q[i];                           \
            x[i] = plain_real(value, scale[c], zero_point[c]);                                     \
        }                                                                                          \
    }

DEFINE_PLAIN(, 0)
DEFINE_PLAIN(_cols, i)

#endif
