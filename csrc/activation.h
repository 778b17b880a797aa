/* The smooth activations: the normative scalar functions. Every SIMD kernel gives the same bits. Each float
 * operation is rounded to float32 once, in the order written (compiled without contraction); an fmaf is one operation.
 *
 *   gelu(x) = x * Phi(x)          Phi(x) = (1 + erf(x / sqrt(2))) / 2
 *   silu(x) = x * sigmoid(x)      sigmoid(x) = 1 / (1 + exp(-x))
 *
 * Both factors, F, have F(t) = 1 - F(-t), so one formula serves both signs. Only the tail on the left is approximated:
 * there its relative accuracy is that of the result, and on the right it is small beside x.
 *
 *   f(x) = relu(x) - t * F(-t),  t = |x|
 *   Phi(-t) = exp(-t * t / 2) * R(t)        sigmoid(-t) = exp(-t) / (1 + exp(-t))
 *
 * The tail carries a factor of 2**64 that keeps it normal; the last operation, an fma, takes the factor away and
 * rounds to a denormal, if need be. t is cut off where the tail is zero in float32, so that only this operation may
 * meet an infinity or a NaN: a NaN comes out as itself, quiet. Zeros keep their sign.
 *
 * The coefficients are minimax fits of the relative error (least squares, reweighted after Lawson; rounded to float32
 * one by one, the rest fitted anew): 3.1e-9 for exp, 5.9e-9 for R. With the roundings, over all floats whose result
 * is normal, gelu is within 3.7 ulp of the exact value, silu within 3.4.
 */
#ifndef QK_ACTIVATION_H
#define QK_ACTIVATION_H

#include "requant.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Here t is cut off. */
static const float qk_gelu_limit = 15.0f, qk_silu_limit = 128.0f;

/* ln(2) in two parts: the nearest multiple of the first, subtracted by fma, leaves an exact difference. */
static const float qk_log2_e = 0x1.715476p+0f, qk_ln2_high = 0x1.62e430p-1f, qk_ln2_low = -0x1.05c610p-29f;

/* Polynomials, highest power first.
 *   1 - exp(-g) = g + g * g * E(g)  for |g| <= ln(2) / 2
 *   R(t) = M(t) / (2 * (t * M(t) + N(t)))  until gelu(-t) is denormal
 * M and N have positive terms alone, so nothing cancels, and for large t an error of M cancels itself. Both start with
 * 25/16 rather than a power of two, just above which floats are the coarsest and the roundings of both would meet. */
enum { QK_EXP_TERMS = 5, QK_TAIL_M_TERMS = 5, QK_TAIL_N_TERMS = 6 };
static const float qk_exp_terms[QK_EXP_TERMS] = {
    -0x1.6a534cp-10f, 0x1.123976p-7f, -0x1.5558aap-5f, 0x1.555492p-3f, -0x1.fffffcp-2f,
};
static const float qk_tail_m_terms[QK_TAIL_M_TERMS] = {
    0x1.97d384p-7f, 0x1.fce0a2p-4f, 0x1.21112ep-1f, 0x1.5be784p+0f, 0x1.9p+0f,
};
static const float qk_tail_n_terms[QK_TAIL_N_TERMS] = {
    0x1.9d33f4p-9f, 0x1.01e84ep-5f, 0x1.444ef6p-3f, 0x1.01ba1cp-1f, 0x1.0b0eeap+0f, 0x1.9p+0f,
};

static inline float qk_float_of_bits(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int32_t qk_bits_of_float(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float qk_polynomial(float x, const float *terms, int count)
{
    float y = terms[0];
    for (int i = 1; i < count; i++)
        y = fmaf(y, x, terms[i]);
    return y;
}

/* min(|x|, limit), and of a NaN the limit: the bits of positive floats are ordered as their values. */
static inline float qk_cut_magnitude(float x, float limit)
{
    int32_t magnitude = qk_bits_of_float(x) & INT32_MAX, bound = qk_bits_of_float(limit);
    return qk_float_of_bits(magnitude < bound ? magnitude : bound);
}

/* a = n * ln(2) + g, for 0 <= a <= 128 */
static inline int32_t qk_exp_n(float a)
{
    return qk_round_s32(a * qk_log2_e);
}

static inline float qk_exp_g(float a, int32_t n)
{
    return fmaf(-(float)n, qk_ln2_low, fmaf(-(float)n, qk_ln2_high, a));
}

/* 2**64 * v * 2**-n * exp(-g) */
static inline float qk_times_exp(float v, int32_t n, float g)
{
    float scaled = v * qk_float_of_bits((127 + 64 - n) << 23);
    float fall = fmaf(qk_polynomial(g, qk_exp_terms, QK_EXP_TERMS), g * g, g);
    return fmaf(-fall, scaled, scaled);
}

/* max(x, -0.0), which keeps both zeros and NaNs; the last bits below zero are those of minus infinity. By bits, because
 * clang 14 takes the choice x < 0 ? -0.0f : x for one by x <= 0, and makes 0.0 to -0.0. */
static inline float qk_relu(float x)
{
    const int32_t minus_infinity = -0x800000, minus_zero = INT32_MIN;
    int32_t bits = qk_bits_of_float(x);
    return qk_float_of_bits(bits <= minus_infinity ? minus_zero : bits);
}

static inline float qk_gelu(float x)
{
    float t = qk_cut_magnitude(x, qk_gelu_limit);
    float square = t * t, half = 0.5f * square;
    float excess = fmaf(-t, t, square); /* what the rounding of t * t has added, exactly */
    int32_t n = qk_exp_n(half);
    float numerator = qk_times_exp(t, n, fmaf(-0.5f, excess, qk_exp_g(half, n)));
    float m = qk_polynomial(t, qk_tail_m_terms, QK_TAIL_M_TERMS);
    float denominator = fmaf(t, m, qk_polynomial(t, qk_tail_n_terms, QK_TAIL_N_TERMS));
    return fmaf(-(numerator * m / denominator), 0x1p-65f, qk_relu(x));
}

static inline float qk_silu(float x)
{
    float t = qk_cut_magnitude(x, qk_silu_limit);
    int32_t n = qk_exp_n(t);
    float e = qk_times_exp(1.0f, n, qk_exp_g(t, n));
    return fmaf(-(t * e / fmaf(e, 0x1p-64f, 1.0f)), 0x1p-64f, qk_relu(x));
}

#endif
