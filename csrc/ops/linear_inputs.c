#include "ops/linear_inputs.h"

#include <math.h>

#include "ops/hadamard.h"

static int is_of_ordinary_size(const float *x, size_t k)
{
    float low = 0.0f, high = 0.0f;
    const int has_nan = qk_kernels.minmax_f32(x, k, &low, &high);
    const float largest = -low > high ? -low : high;
    return !has_nan && largest >= 0x1p-100f && largest < 0x1p100f;
}

/* The product with the scales, exact in double, at a power of two where its largest value is in [0.5, 1). */
static qk_status normalize(const qk_transform *t, const float *x, float *y, int32_t *exponent)
{
    double largest = 0.0;
    for (size_t i = 0; i < t->k; i++) {
        const double size = fabs((double)x[i] * (t->scales ? t->scales[i] : 1.0f));
        if (!isfinite(size))
            return QK_NOT_FINITE;
        largest = size > largest ? size : largest;
    }
    int e;
    frexp(largest, &e);
    const double factor = ldexp(1.0, -e);
    for (size_t i = 0; i < t->k; i++)
        y[i] = (float)((double)x[i] * (t->scales ? t->scales[i] : 1.0f) * factor);
    *exponent = e;
    return QK_OK;
}

qk_status qk_transform_row(const qk_transform *t, const float *x, float *y, int32_t *exponent)
{
    const float *values = x;
    *exponent = 0;
    for (size_t i = 0; t->scales && i < t->k; i++)
        y[i] = x[i] * t->scales[i];
    if (t->scales)
        values = y;
    if (!is_of_ordinary_size(values, t->k)) {
        const qk_status status = normalize(t, x, y, exponent);
        if (status != QK_OK)
            return status;
        values = y;
    }
    if (t->factors)
        qk_kernels.hadamard_f32(values, t->k, qk_hadamard_block(t->k), t->factors, 0, y);
    return QK_OK;
}
