/* The smooth activations, once for all SIMD ISAs (see affine_f32_body.h). Formulas, coefficients and order of the
 * float operations: csrc/activation.h, whose functions these follow step by step. Tails use _part loads and stores.
 */
#ifndef QK_ACTIVATE_F32_BODY_H
#define QK_ACTIVATE_F32_BODY_H

#include "activation.h"
#include "kernels.h"

QK_INLINE vf polynomial(vf x, const float *terms, const int count)
{
    vf y = vf_set1(terms[0]);
    for (int i = 1; i < count; i++)
        y = vf_fma(y, x, vf_set1(terms[i]));
    return y;
}

static inline vf cut_magnitude(vf x, float limit)
{
    vi magnitude = vi_and(vf_bits(x), vi_set1(INT32_MAX));
    return vf_of_bits(vi_min(magnitude, vf_bits(vf_set1(limit))));
}

static inline vi exp_n(vf a)
{
    return vf_round(vf_mul(a, vf_set1(qk_log2_e)));
}

static inline vf exp_g(vf a, vi n)
{
    vf near = vf_fnma(vi_to_vf(n), vf_set1(qk_ln2_high), a);
    return vf_fnma(vi_to_vf(n), vf_set1(qk_ln2_low), near);
}

static inline vf times_exp(vf v, vi n, vf g)
{
    vf scaled = vf_mul(v, vf_of_bits(vi_shift_left(vi_sub(vi_set1(127 + 64), n), vi_set1(23))));
    vf fall = vf_fma(polynomial(g, qk_exp_terms, QK_EXP_TERMS), vf_mul(g, g), g);
    return vf_fnma(fall, scaled, scaled);
}

/* Of two zeros, and where x is a NaN, the result is x on every ISA. */
static inline vf relu(vf x)
{
    return vf_max(vf_set1(-0.0f), x);
}

static inline vf gelu(vf x)
{
    vf t = cut_magnitude(x, qk_gelu_limit);
    vf square = vf_mul(t, t), half = vf_mul(vf_set1(0.5f), square);
    vf excess = vf_fnma(t, t, square);
    vi n = exp_n(half);
    vf numerator = times_exp(t, n, vf_fnma(vf_set1(0.5f), excess, exp_g(half, n)));
    vf m = polynomial(t, qk_tail_m_terms, QK_TAIL_M_TERMS);
    vf denominator = vf_fma(t, m, polynomial(t, qk_tail_n_terms, QK_TAIL_N_TERMS));
    return vf_fnma(vf_div(vf_mul(numerator, m), denominator), vf_set1(0x1p-65f), relu(x));
}

static inline vf silu(vf x)
{
    vf t = cut_magnitude(x, qk_silu_limit);
    vi n = exp_n(t);
    vf e = times_exp(vf_set1(1.0f), n, exp_g(t, n));
    vf denominator = vf_fma(e, vf_set1(0x1p-64f), vf_set1(1.0f));
    return vf_fnma(vf_div(vf_mul(t, e), denominator), vf_set1(0x1p-64f), relu(x));
}

#define QK_DEFINE_ACTIVATION(name, isa)                                                                      \
    void qk_##name##_f32_##isa(float *x, size_t n)                                                           \
    {                                                                                                        \
        size_t i = 0;                                                                                        \
        for (; i + LANES <= n; i += LANES)                                                                   \
            vf_store(x + i, name(vf_load(x + i)));                                                           \
        if (i < n)                                                                                           \
            vf_store_part(x + i, name(vf_load_part(x + i, n - i)), n - i);                                   \
    }

#define QK_DEFINE_ACTIVATIONS(isa)                                                                           \
    QK_DEFINE_ACTIVATION(gelu, isa)                                                                          \
    QK_DEFINE_ACTIVATION(silu, isa)

#endif
