/* The gradients of fake_quantize, once for SIMD ISAs (see affine_f32_body.h); the formulas are those of kernels.h.
 *
 * A float times a float is exact in double, so a fused multiply-add gives the sums of the scalar kernel. They lie in
 * eight lanes of double on every ISA: two registers of AVX2, four of Advanced SIMD, for each sum. AVX-512, which has
 * more floats in a register than there are lanes, has no version of its own: its machines take the AVX2 kernels. Tails
 * use _part loads, whose zeros add nothing.
 */
#ifndef QK_FAKE_GRAD_F32_BODY_H
#define QK_FAKE_GRAD_F32_BODY_H

#include "kernels.h"
#include "kernels/unroll.h"

enum { HALF = LANES / 2, STEPS = QK_GRAD_LANES / LANES };

typedef struct grid {
    vf scale, below, above; /* below, above: one step beyond the range, where values are clamped before rounding */
    vi low, high;           /* qmin - zero_point, qmax - zero_point */
} grid;

typedef struct gradients {
    vf dx, clipped, factor; /* clipped: dy where dx is 0 */
} gradients;

typedef struct sums {
    vd low, high; /* of the first and the second half of the lanes */
} sums;

static inline grid grid_of(vf scale, vi zero_point, qk_qtype type)
{
    const vi low = vi_sub(vi_set1(type.qmin), zero_point), high = vi_sub(vi_set1(type.qmax), zero_point);
    return (grid){
        .scale = scale,
        .below = vi_to_vf(vi_sub(low, vi_set1(1))),
        .above = vi_to_vf(vi_add(high, vi_set1(1))),
        .low = low,
        .high = high,
    };
}

static inline gradients gradients_of(vf dy, vf x, const grid *g)
{
    const vf t = vf_div(x, g->scale);
    const vi rounded = vf_round(vf_clamp(t, g->below, g->above));
    const vi clamped = vi_min(vi_max(rounded, g->low), g->high), inside = vi_equal(rounded, clamped);
    const vi dx = vi_and(vf_bits(dy), inside);
    return (gradients){
        .dx = vf_of_bits(dx),
        .clipped = vf_of_bits(vi_xor(vf_bits(dy), dx)),
        .factor = vf_sub(vi_to_vf(clamped), vf_of_bits(vi_and(vf_bits(t), inside))),
    };
}

static inline void add_products(sums *s, vf a, vf b)
{
    s->low = vd_fma(vd_of_low(a), vd_of_low(b), s->low);
    s->high = vd_fma(vd_of_high(a), vd_of_high(b), s->high);
}

static inline void add(sums *s, vf x)
{
    s->low = vd_add(s->low, vd_of_low(x));
    s->high = vd_add(s->high, vd_of_high(x));
}

static inline sums load_sums(const double *p) { return (sums){vd_load(p), vd_load(p + HALF)}; }

static inline void store_sums(double *p, sums s)
{
    vd_store(p, s.low);
    vd_store(p + HALF, s.high);
}

/* One scale. `summed`, a constant: whether sums are wanted. */
QK_INLINE int fake_grad(const float *dy, const float *x, size_t n, const float *scale, const int32_t *zero_point,
                        qk_qtype type, float *dx, double *dscale, double *dclip, const int summed)
{
    const grid g = grid_of(vf_set1(*scale), vi_set1(*zero_point), type);
    sums scale_sums[STEPS], clip_sums[STEPS];
    vi nan = vi_set1(0);
    size_t i = 0;
    if (summed) {
        QK_UNROLL4(s, STEPS, {
            scale_sums[s] = load_sums(dscale + s * LANES);
            clip_sums[s] = load_sums(dclip + s * LANES);
        })
    }
    for (; i + QK_GRAD_LANES <= n; i += QK_GRAD_LANES) {
        QK_UNROLL4(s, STEPS, {
            const vf gradient = vf_load(dy + i + s * LANES), value = vf_load(x + i + s * LANES);
            const gradients d = gradients_of(gradient, value, &g);
            nan = vi_or(nan, vf_is_nan(value));
            vf_store(dx + i + s * LANES, d.dx);
            if (summed) {
                add_products(&scale_sums[s], gradient, d.factor);
                add(&clip_sums[s], d.clipped);
            }
        })
    }
    QK_UNROLL4(s, STEPS, {
        const size_t at = i + s * LANES;
        if (at < n) {
            const size_t left = n - at < LANES ? n - at : LANES;
            const vf gradient = vf_load_part(dy + at, left), value = vf_load_part(x + at, left);
            const gradients d = gradients_of(gradient, value, &g);
            nan = vi_or(nan, vf_is_nan(value));
            vf_store_part(dx + at, d.dx, left);
            if (summed) {
                add_products(&scale_sums[s], gradient, d.factor);
                add(&clip_sums[s], d.clipped);
            }
        }
    })
    if (summed) {
        QK_UNROLL4(s, STEPS, {
            store_sums(dscale + s * LANES, scale_sums[s]);
            store_sums(dclip + s * LANES, clip_sums[s]);
        })
    }
    return vi_any(nan);
}

/* A scale a value: LANES of them. Returns the lanes that are NaN. */
QK_INLINE vi fake_grad_cols_step(vf dy, vf x, vf scale, vi zero_point, qk_qtype type, vf *dx, double *dscale,
                                 double *dclip, const int summed)
{
    const grid g = grid_of(scale, zero_point, type);
    const gradients d = gradients_of(dy, x, &g);
    *dx = d.dx;
    if (summed) {
        sums scale_sums = load_sums(dscale), clip_sums = load_sums(dclip);
        add_products(&scale_sums, dy, d.factor);
        add(&clip_sums, d.clipped);
        store_sums(dscale, scale_sums);
        store_sums(dclip, clip_sums);
    }
    return vf_is_nan(x);
}

QK_INLINE int fake_grad_cols(const float *dy, const float *x, size_t n, const float *scale, const int32_t *zero_point,
                             qk_qtype type, float *dx, double *dscale, double *dclip, const int summed)
{
    vi nan = vi_set1(0);
    vf out;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        nan = vi_or(nan, fake_grad_cols_step(vf_load(dy + i), vf_load(x + i), vf_load(scale + i),
                                             vi_load(zero_point + i), type, &out, summed ? dscale + i : NULL,
                                             summed ? dclip + i : NULL, summed));
        vf_store(dx + i, out);
    }
    if (i < n) {
        const size_t left = n - i, bytes = left * sizeof(double);
        double scale_lanes[LANES] = {0}, clip_lanes[LANES] = {0};
        if (summed) {
            memcpy(scale_lanes, dscale + i, bytes);
            memcpy(clip_lanes, dclip + i, bytes);
        }
        nan = vi_or(nan, fake_grad_cols_step(vf_load_part(dy + i, left), vf_load_part(x + i, left),
                                             vf_load_part(scale + i, left), vi_load_part(zero_point + i, left), type,
                                             &out, scale_lanes, clip_lanes, summed));
        vf_store_part(dx + i, out, left);
        if (summed) {
            memcpy(dscale + i, scale_lanes, bytes);
            memcpy(dclip + i, clip_lanes, bytes);
        }
    }
    return vi_any(nan);
}

#define QK_DEFINE_FAKE_GRAD_FORM(name, body)                                                                 \
    int name(const float *dy, const float *x, size_t n, const float *scale, const int32_t *zero_point,       \
             qk_qtype type, float *dx, double *dscale, double *dclip)                                        \
    {                                                                                                        \
        return dscale ? body(dy, x, n, scale, zero_point, type, dx, dscale, dclip, 1)                        \
                      : body(dy, x, n, scale, zero_point, type, dx, NULL, NULL, 0);                          \
    }

#define QK_DEFINE_FAKE_GRAD(isa)                                                                             \
    QK_DEFINE_FAKE_GRAD_FORM(qk_fake_grad_f32_##isa, fake_grad)                                              \
    QK_DEFINE_FAKE_GRAD_FORM(qk_fake_grad_cols_f32_##isa, fake_grad_cols)

#endif
