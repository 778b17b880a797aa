/* The gradients of fake_quantize in plain C, the oracle of every SIMD version; the formulas are those of kernels.h.
 *
 * The quotient is clamped one step beyond the range before it is rounded: still outside, and an integer that fits.
 */
#include "kernels.h"
#include "requant.h"

/* `one` scale, zero point and row of lanes, or one of each a value. */
static inline int fake_grad(const float *dy, const float *x, size_t n, const float *scale, const int32_t *zero_point,
                            qk_qtype type, float *dx, double *dscale, double *dclip, int one)
{
    int nan = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t c = one ? 0 : i, lane = one ? i % QK_GRAD_LANES : i;
        const int32_t low = type.qmin - zero_point[c], high = type.qmax - zero_point[c];
        nan |= x[i] != x[i];
        const float t = (x[i] != x[i] ? 0.0f : x[i]) / scale[c], y = dy[i];
        const int32_t rounded = qk_round_s32(qk_clamp_f32(t, (float)(low - 1), (float)(high + 1)));
        const int32_t clamped = qk_clamp_s32(rounded, low, high);
        const int inside = rounded == clamped;
        dx[i] = inside ? y : 0.0f;
        if (dscale) {
            dscale[lane] += (double)y * (double)((float)clamped - (inside ? t : 0.0f));
            dclip[lane] += inside ? 0.0 : (double)y;
        }
    }
    return nan;
}

int qk_fake_grad_f32_scalar(const float *dy, const float *x, size_t n, const float *scale, const int32_t *zero_point,
                            qk_qtype type, float *dx, double *dscale, double *dclip)
{
    return fake_grad(dy, x, n, scale, zero_point, type, dx, dscale, dclip, 1);
}

int qk_fake_grad_cols_f32_scalar(const float *dy, const float *x, size_t n, const float *scale,
                                 const int32_t *zero_point, qk_qtype type, float *dx, double *dscale, double *dclip)
{
    return fake_grad(dy, x, n, scale, zero_point, type, dx, dscale, dclip, 0);
}
