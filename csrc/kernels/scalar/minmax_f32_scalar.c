/* The range of n values, or of each of n columns, in plain C: the oracle of every SIMD version. */
#include "kernels.h"

int qk_minmax_f32_scalar(const float *x, size_t n, float *low, float *high)
{
    float lo = *low, hi = *high;
    int nan = 0;
    for (size_t i = 0; i < n; i++) {
        nan |= x[i] != x[i];
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    *low = lo;
    *high = hi;
    return nan;
}

int qk_minmax_cols_f32_scalar(const float *x, size_t n, float *low, float *high)
{
    int nan = 0;
    for (size_t i = 0; i < n; i++) {
        nan |= x[i] != x[i];
        low[i] = x[i] < low[i] ? x[i] : low[i];
        high[i] = x[i] > high[i] ? x[i] : high[i];
    }
    return nan;
}
