/* Quantize, dequantize and fake-quantize float32, in plain C: the oracle of every SIMD version.
 *
 *   q = clamp(round_half_even(x / scale) + zero_point, qmin, qmax)        x = float32(q - zero_point) * scale
 *
 * The first form of each has one scale for all n values, the _cols form one for each value.
 */
#include "kernels.h"
#include "requant.h"

/* A value that the zero point shifts: q - zero_point before narrowing. */
static inline int32_t steps(float x, float scale, int32_t zero_point, qk_qtype type)
{
    return qk_quantize_s32(x, scale, (float)(type.qmin - zero_point), (float)(type.qmax - zero_point));
}

/* `one` scale and zero point, or one a value: index i or 0. */
#define AT(i, one) ((one) ? 0 : (i))

static inline int quantize(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                           qk_qtype type, uint8_t *q, int one)
{
    int nan = 0;
    for (size_t i = 0; i < n; i++) {
        size_t c = AT(i, one);
        nan |= x[i] != x[i];
        float value = x[i] != x[i] ? 0.0f : x[i];
        q[i] = (uint8_t)(steps(value, scale[c], zero_point[c], type) + zero_point[c]);
    }
    return nan;
}

static inline void dequantize(const uint8_t *q, size_t n, const float *scale, const int32_t *zero_point,
                              int is_signed, float *x, int one)
{
    for (size_t i = 0; i < n; i++) {
        size_t c = AT(i, one);
        int32_t value = is_signed ? (int8_t)q[i] : q[i];
        x[i] = (float)(value - zero_point[c]) * scale[c];
    }
}

static inline int fake_quantize(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                                qk_qtype type, float *y, int one)
{
    int nan = 0;
    for (size_t i = 0; i < n; i++) {
        size_t c = AT(i, one);
        nan |= x[i] != x[i];
        float value = x[i] != x[i] ? 0.0f : x[i];
        y[i] = (float)steps(value, scale[c], zero_point[c], type) * scale[c];
    }
    return nan;
}

int qk_quantize_f32_scalar(const float *x, size_t n, const float *scale, const int32_t *zero_point, qk_qtype type,
                           uint8_t *q)
{
    return quantize(x, n, scale, zero_point, type, q, 1);
}

int qk_quantize_cols_f32_scalar(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                                qk_qtype type, uint8_t *q)
{
    return quantize(x, n, scale, zero_point, type, q, 0);
}

void qk_dequantize_f32_scalar(const uint8_t *q, size_t n, const float *scale, const int32_t *zero_point,
                              int is_signed, float *x)
{
    dequantize(q, n, scale, zero_point, is_signed, x, 1);
}

void qk_dequantize_cols_f32_scalar(const uint8_t *q, size_t n, const float *scale, const int32_t *zero_point,
                                   int is_signed, float *x)
{
    dequantize(q, n, scale, zero_point, is_signed, x, 0);
}

int qk_fake_quantize_f32_scalar(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                                qk_qtype type, float *y)
{
    return fake_quantize(x, n, scale, zero_point, type, y, 1);
}

int qk_fake_quantize_cols_f32_scalar(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                                     qk_qtype type, float *y)
{
    return fake_quantize(x, n, scale, zero_point, type, y, 0);
}
