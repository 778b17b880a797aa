/* Quantize, dequantize and fake-quantize float32, once for all SIMD ISAs. A kernel file includes its ISA's
 * vocabulary (simd_<isa>.h) and then this file, and names its functions with QK_DEFINE_AFFINE(isa).
 *
 *   q = clamp(round_half_even(x / scale) + zero_point, qmin, qmax)        x = float32(q - zero_point) * scale
 *
 * The clamp comes before the rounding, with the bounds moved by the zero point; both are integers, so this is the
 * same, and no float outside int32 meets the conversion. Signedness: a signed byte is its unsigned reading xor 0x80
 * minus 128, so only the zero point differs. Tails use _part loads and stores. `one` tells, as a constant, whether
 * scale and zero_point are single values or one a column.
 */
#ifndef QK_AFFINE_F32_BODY_H
#define QK_AFFINE_F32_BODY_H

#include "kernels.h"

typedef struct affine {
    vf scale, low, high; /* low, high: qmin - zero_point, qmax - zero_point */
    vi zero_point;
} affine;

static inline affine affine_of(vf scale, vi zero_point, qk_qtype type)
{
    return (affine){
        .scale = scale,
        .low = vi_to_vf(vi_sub(vi_set1(type.qmin), zero_point)),
        .high = vi_to_vf(vi_sub(vi_set1(type.qmax), zero_point)),
        .zero_point = zero_point,
    };
}

/* q - zero_point */
static inline vi quantized_steps(vf x, const affine *a)
{
    return vf_round(vf_clamp(vf_div(x, a->scale), a->low, a->high));
}

static inline int quantize(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                           qk_qtype type, uint8_t *q, const int one)
{
    affine a = affine_of(vf_set1(one ? *scale : 1.0f), vi_set1(one ? *zero_point : 0), type);
    vi nan = vi_set1(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf value = vf_load(x + i);
        if (!one)
            a = affine_of(vf_load(scale + i), vi_load(zero_point + i), type);
        nan = vi_or(nan, vf_is_nan(value));
        vi_store_bytes(q + i, vi_add(quantized_steps(value, &a), a.zero_point));
    }
    if (i < n) {
        vf value = vf_load_part(x + i, n - i);
        if (!one)
            a = affine_of(vf_load_part(scale + i, n - i), vi_load_part(zero_point + i, n - i), type);
        nan = vi_or(nan, vf_is_nan(value));
        vi_store_bytes_part(q + i, vi_add(quantized_steps(value, &a), a.zero_point), n - i);
    }
    return vi_any(nan);
}

static inline int fake_quantize(const float *x, size_t n, const float *scale, const int32_t *zero_point,
                                qk_qtype type, float *y, const int one)
{
    affine a = affine_of(vf_set1(one ? *scale : 1.0f), vi_set1(one ? *zero_point : 0), type);
    vi nan = vi_set1(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf value = vf_load(x + i);
        if (!one)
            a = affine_of(vf_load(scale + i), vi_load(zero_point + i), type);
        nan = vi_or(nan, vf_is_nan(value));
        vf_store(y + i, vf_mul(vi_to_vf(quantized_steps(value, &a)), a.scale));
    }
    if (i < n) {
        vf value = vf_load_part(x + i, n - i);
        if (!one)
            a = affine_of(vf_load_part(scale + i, n - i), vi_load_part(zero_point + i, n - i), type);
        nan = vi_or(nan, vf_is_nan(value));
        vf_store_part(y + i, vf_mul(vi_to_vf(quantized_steps(value, &a)), a.scale), n - i);
    }
    return vi_any(nan);
}

static inline void dequantize(const uint8_t *q, size_t n, const float *scale, const int32_t *zero_point,
                              int is_signed, float *x, const int one)
{
    const vi flip = vi_set1(is_signed ? 0x80 : 0);
    vf s = vf_set1(one ? *scale : 1.0f);
    vi z = vi_add(vi_set1(one ? *zero_point : 0), flip);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        if (!one) {
            s = vf_load(scale + i);
            z = vi_add(vi_load(zero_point + i), flip);
        }
        vi value = vi_xor(vi_load_bytes(q + i), flip);
        vf_store(x + i, vf_mul(vi_to_vf(vi_sub(value, z)), s));
    }
    if (i < n) {
        if (!one) {
            s = vf_load_part(scale + i, n - i);
            z = vi_add(vi_load_part(zero_point + i, n - i), flip);
        }
        vi value = vi_xor(vi_load_bytes_part(q + i, n - i), flip);
        vf_store_part(x + i, vf_mul(vi_to_vf(vi_sub(value, z)), s), n - i);
    }
}

#define QK_DEFINE_AFFINE_FORM(form, isa, one)                                                                \
    int qk_quantize_##form##_##isa(const float *x, size_t n, const float *scale, const int32_t *zero_point,  \
                                   qk_qtype type, uint8_t *q)                                                \
    {                                                                                                        \
        return quantize(x, n, scale, zero_point, type, q, one);                                              \
    }                                                                                                        \
    int qk_fake_quantize_##form##_##isa(const float *x, size_t n, const float *scale,                        \
                                        const int32_t *zero_point, qk_qtype type, float *y)                  \
    {                                                                                                        \
        return fake_quantize(x, n, scale, zero_point, type, y, one);                                         \
    }                                                                                                        \
    void qk_dequantize_##form##_##isa(const uint8_t *q, size_t n, const float *scale,                        \
                                      const int32_t *zero_point, int is_signed, float *x)                    \
    {                                                                                                        \
        dequantize(q, n, scale, zero_point, is_signed, x, one);                                              \
    }

#define QK_DEFINE_AFFINE(isa)                                                                                \
    QK_DEFINE_AFFINE_FORM(f32, isa, 1)                                                                       \
    QK_DEFINE_AFFINE_FORM(cols_f32, isa, 0)

#endif
