/* The range of n values, or of each of n columns, once for all SIMD ISAs (see affine_f32_body.h). Which of two equal
 * zeros a minimum keeps differs between ISAs; the callers only use ranges in ways that the sign of a zero does not
 * touch (csrc/ops/affine.c). */
#ifndef QK_MINMAX_F32_BODY_H
#define QK_MINMAX_F32_BODY_H

#include "kernels.h"

static inline int minmax(const float *x, size_t n, float *low, float *high)
{
    enum { CHAINS = 4 }; /* minimum and maximum take 4 cycles: independent chains keep the units busy */
    vf lo[CHAINS], hi[CHAINS];
    vi nan = vi_set1(0);
    for (int c = 0; c < CHAINS; c++) {
        lo[c] = vf_set1(*low);
        hi[c] = vf_set1(*high);
    }
    size_t i = 0;
    for (; i + CHAINS * LANES <= n; i += CHAINS * LANES)
        for (int c = 0; c < CHAINS; c++) {
            vf value = vf_load(x + i + c * LANES);
            nan = vi_or(nan, vf_is_nan(value));
            lo[c] = vf_min(lo[c], value);
            hi[c] = vf_max(hi[c], value);
        }
    for (; i + LANES <= n; i += LANES) {
        vf value = vf_load(x + i);
        nan = vi_or(nan, vf_is_nan(value));
        lo[0] = vf_min(lo[0], value);
        hi[0] = vf_max(hi[0], value);
    }
    /* Lanes in pairs, and not one after another: with short runs that is most of the work. */
    vf least = vf_min(vf_min(lo[0], lo[1]), vf_min(lo[2], lo[3]));
    vf greatest = vf_max(vf_max(hi[0], hi[1]), vf_max(hi[2], hi[3]));
    for (int d = LANES / 2; d; d /= 2) {
        least = vf_min(least, vf_swap(least, d));
        greatest = vf_max(greatest, vf_swap(greatest, d));
    }
    float ends[2 * LANES];
    vf_store(ends, least);
    vf_store(ends + LANES, greatest);
    int any_nan = vi_any(nan);
    *low = ends[0];
    *high = ends[LANES];
    for (; i < n; i++) {
        any_nan |= x[i] != x[i];
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
    return any_nan;
}

static inline int minmax_cols(const float *x, size_t n, float *low, float *high)
{
    vi nan = vi_set1(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf value = vf_load(x + i);
        nan = vi_or(nan, vf_is_nan(value));
        vf_store(low + i, vf_min(vf_load(low + i), value));
        vf_store(high + i, vf_max(vf_load(high + i), value));
    }
    if (i < n) {
        vf value = vf_load_part(x + i, n - i);
        nan = vi_or(nan, vf_is_nan(value));
        vf_store_part(low + i, vf_min(vf_load_part(low + i, n - i), value), n - i);
        vf_store_part(high + i, vf_max(vf_load_part(high + i, n - i), value), n - i);
    }
    return vi_any(nan);
}

#define QK_DEFINE_MINMAX(isa)                                                                                \
    int qk_minmax_f32_##isa(const float *x, size_t n, float *low, float *high)                               \
    {                                                                                                        \
        return minmax(x, n, low, high);                                                                      \
    }                                                                                                        \
    int qk_minmax_cols_f32_##isa(const float *x, size_t n, float *low, float *high)                          \
    {                                                                                                        \
        return minmax_cols(x, n, low, high);                                                                 \
    }

#endif
