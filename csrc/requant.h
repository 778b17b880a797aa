/* Requantization: the normative scalar functions. Every SIMD kernel, and qkernels.ref.requant, gives the same
 * bits. Each float operation is rounded to float32 once, in the order written (compiled without contraction).
 */
#ifndef QK_REQUANT_H
#define QK_REQUANT_H

#include <math.h>
#include <stdint.h>

/* x, or the bound that it passes. Comparisons rather than fmin/fmax: -0.0 stays -0.0 on every architecture. */
static inline float qk_clamp_f32(float x, float low, float high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* Round half to even, for |x| <= 2**31: adding and subtracting 1.5 * 2**52 in double leaves no fraction bits, and
 * the sum is rounded by the default rounding mode. Baseline x86-64 has no rounding instruction for this. */
static inline int32_t qk_round_s32(float x)
{
    const double magic = 6755399441055744.0;
    double shifted = (double)x + magic;
    return (int32_t)(shifted - magic);
}

/* quantize, up to the zero point: low and high are qmin - zero_point and qmax - zero_point, exact in float32.
 * Clamping before rounding equals clamping after it, because the bounds are integers. */
static inline int32_t qk_quantize_s32(float x, float scale, float low, float high)
{
    return qk_round_s32(qk_clamp_f32(x / scale, low, high));
}

/* Fixed point, as in TFLite's reference kernels (double rounding, gemmlowp):
 *   acc * 2**left, saturated; times mult / 2**31, rounded half up; divided by 2**right, rounded half away from 0.
 * SaturatingRoundingDoublingHighMul(x, m), m >= 0, equals floor((x * m + 2**30) / 2**31), which is also what
 * NEON's sqrdmulh computes. */
static inline int32_t qk_rounding_high_mul(int32_t x, int32_t mult)
{
    return (int32_t)(((int64_t)x * mult + (1 << 30)) >> 31);
}

static inline int32_t qk_requant_fixed(int32_t acc, int32_t mult, int32_t left, int32_t right)
{
    int64_t shifted = (int64_t)acc * ((int64_t)1 << left);
    int32_t x = shifted > INT32_MAX ? INT32_MAX : shifted < INT32_MIN ? INT32_MIN : (int32_t)shifted;
    int32_t h = qk_rounding_high_mul(x, mult);
    int32_t mask = (int32_t)(((uint32_t)1 << right) - 1);
    return (h >> right) + ((h & mask) > (mask >> 1) + (h < 0));
}

static inline int32_t qk_clamp_s32(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : x > high ? high : x;
}

#endif
