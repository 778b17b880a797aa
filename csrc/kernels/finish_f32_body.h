/* From the sums of a row to its output, once for all SIMD ISAs (see affine_f32_body.h); the formula is
 * qk_finish_f32_type's. Tails use _part loads and stores. */
#ifndef QK_FINISH_F32_BODY_H
#define QK_FINISH_F32_BODY_H

#include "kernels.h"

typedef struct finish {
    vf scale, low, high;
    vi not_finite; /* has bits where a result has been a NaN or an infinity before the clamp */
} finish;

static inline vf finished(vf sum, vf bias, finish *f)
{
    const vf y = vf_add(vf_mul(sum, f->scale), bias);
    f->not_finite = vi_or(f->not_finite, vf_bits(vf_sub(y, y))); /* 0.0, or a NaN */
    return vf_clamp(y, f->low, f->high);
}

#define QK_DEFINE_FINISH(isa)                                                                                \
    int qk_finish_f32_##isa(const float *sums, size_t ld, size_t rows, size_t n, float scale,                \
                            const float *bias, float low, float high, float *out)                            \
    {                                                                                                        \
        finish f = {vf_set1(scale), vf_set1(low), vf_set1(high), vi_set1(0)};                                \
        size_t j = 0;                                                                                        \
        for (; j + LANES <= n; j += LANES) {                                                                 \
            vf sum = vf_load(sums + j);                                                                      \
            for (size_t r = 1; r < rows; r++)                                                                \
                sum = vf_add(sum, vf_load(sums + r * ld + j));                                               \
            vf_store(out + j, finished(sum, vf_load(bias + j), &f));                                         \
        }                                                                                                    \
        if (j < n) {                                                                                         \
            vf sum = vf_load_part(sums + j, n - j);                                                          \
            for (size_t r = 1; r < rows; r++)                                                                \
                sum = vf_add(sum, vf_load_part(sums + r * ld + j, n - j));                                   \
            vf_store_part(out + j, finished(sum, vf_load_part(bias + j, n - j), &f), n - j);                 \
        }                                                                                                    \
        return vi_any(f.not_finite);                                                                         \
    }

#endif
