/* The part of a product that is done once: checks of the values, and the arrays indexed by column. */
#include "ops/gemm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "requant.h"

/* ----------------------------------------------------------------------------------------------- arguments */

static int positive(float x) { return x > 0.0f && x < INFINITY; }

qk_status qk_check_gemm_values(const qk_gemm_args *args, size_t n)
{
    int32_t qmin = args->a.is_signed ? -128 : 0, qmax = args->a.is_signed ? 127 : 255;
    for (size_t i = 0; i < args->a_zero_point_count; i++)
        if (args->a_zero_point[i] < qmin || args->a_zero_point[i] > qmax)
            return QK_BAD_ZERO_POINT;
    if (args->output == QK_OUT_S32)
        return QK_OK;
    for (size_t j = 0; j < args->scales_count; j++)
        if (!positive(args->scales[j]))
            return QK_BAD_SCALE;
    if (args->row_scales)
        for (size_t i = 0; i < args->a.rows; i++)
            if (!positive(args->row_scales[i]))
                return QK_BAD_ROW_SCALES;
    if (args->bias_f32)
        for (size_t j = 0; j < n; j++)
            if (!isfinite(args->bias_f32[j]))
                return QK_BAD_BIAS;
    if (args->output != QK_OUT_F32 && !positive(args->out_scale))
        return QK_BAD_OUT_SCALE;
    return QK_OK;
}

uint64_t qk_gemm_reach(const qk_gemm_args *args, const qk_packed_b *b)
{
    int32_t qmin = args->a.is_signed ? -128 : 0, qmax = args->a.is_signed ? 127 : 255, a_reach = 0;
    for (size_t i = 0; i < args->a_zero_point_count; i++) {
        int32_t z = args->a_zero_point[i];
        int32_t reach = qmax - z > z - qmin ? qmax - z : z - qmin;
        a_reach = reach > a_reach ? reach : a_reach;
    }
    uint64_t bias = 0, total;
    for (size_t j = 0; args->bias_s32 && j < b->n; j++) {
        uint64_t magnitude = (uint64_t)llabs((long long)args->bias_s32[j]);
        bias = magnitude > bias ? magnitude : bias;
    }
    if (__builtin_mul_overflow(b->k, (uint64_t)(a_reach * b->magnitude), &total))
        return UINT64_MAX;
    return total > UINT64_MAX - bias ? UINT64_MAX : total + bias;
}

/* ------------------------------------------------------------------------------------------------- columns */

/* Multiplier and shifts of scale / out_scale = mult / 2**31 * 2**(left - right), as TFLite's QuantizeMultiplier. */
static qk_status fixed_point(float scale, float out_scale, int32_t *mult, int32_t *left, int32_t *right)
{
    int exponent;
    double fraction = frexp((double)scale / (double)out_scale, &exponent);
    long long q31 = llround(fraction * 2147483648.0);
    if (q31 == 2147483648LL) {
        q31 /= 2;
        exponent++;
    }
    if (exponent > 30)
        return QK_FIXED_SCALE;
    if (exponent < -31) {
        q31 = 0;
        exponent = 0;
    }
    *mult = (int32_t)q31;
    *left = exponent > 0 ? exponent : 0;
    *right = exponent < 0 ? -exponent : 0;
    return QK_OK;
}

void qk_prepare_terms(const qk_product *p, size_t col, size_t end)
{
    const int32_t *bias = p->args->bias_s32, *column_sums = p->columns.column_sums;
    const uint32_t a_zero_point = p->a_zero_point ? 0 : (uint32_t)(p->args->a_zero_point[0] + p->a_shift);
    for (size_t j = col; j < end; j++)
        p->int_columns[j] = (int32_t)((bias ? (uint32_t)bias[j] : 0) - a_zero_point * (uint32_t)column_sums[j]);
}

qk_status qk_prepare_columns(qk_product *p)
{
    const qk_gemm_args *args = p->args;
    const size_t n = p->b->n, padded = p->b->padded_n;
    int32_t *term = p->int_columns;

    p->columns = (qk_store_args){
        .column_term = term,
        .b_zero_point = qk_packed_zero_point(p->b, p->packed),
        .column_sums = qk_packed_column_sums(p->b, p->packed),
        .zero_point = args->out_zero_point,
        .low = args->clamp_low,
        .high = args->clamp_high,
    };
    if (!p->by_panels)
        qk_prepare_terms(p, 0, n);
    memset(term + n, 0, (padded - n) * sizeof *term);
    if (args->output == QK_OUT_S32)
        return QK_OK;

    if (args->output != QK_OUT_F32) { /* clamp in steps of out_scale, around the zero point */
        float qmin = (float)(args->out_type.qmin - args->out_zero_point);
        float qmax = (float)(args->out_type.qmax - args->out_zero_point);
        p->columns.fixed_low = qk_quantize_s32(args->clamp_low, args->out_scale, qmin, qmax);
        p->columns.fixed_high = qk_quantize_s32(args->clamp_high, args->out_scale, qmin, qmax);
        p->columns.low = (float)p->columns.fixed_low;
        p->columns.high = (float)p->columns.fixed_high;
    }
    if (args->output == QK_OUT_Q8_FIXED) {
        int32_t *mult = term + padded, *left = mult + padded, *right = left + padded;
        memset(mult, 0, 3 * padded * sizeof *mult);
        for (size_t j = 0; j < n; j++) {
            float scale = args->scales[args->scales_count == 1 ? 0 : j];
            qk_status status = fixed_point(scale, args->out_scale, mult + j, left + j, right + j);
            if (status != QK_OK)
                return status;
        }
        p->columns.fixed_mult = mult;
        p->columns.fixed_left = left;
        p->columns.fixed_right = right;
        return QK_OK;
    }
    float *mult = p->float_columns, *bias = mult + padded, largest = 0.0f, largest_row = 1.0f;
    memset(mult, 0, 2 * padded * sizeof *mult);
    for (size_t j = 0; j < n; j++) {
        float scale = args->scales[args->scales_count == 1 ? 0 : j];
        mult[j] = args->output == QK_OUT_Q8 ? scale / args->out_scale : scale;
        largest = mult[j] > largest ? mult[j] : largest;
        bias[j] = args->bias_f32 ? args->bias_f32[j] : -0.0f;
        if (args->output == QK_OUT_Q8)
            bias[j] /= args->out_scale;
        if (!isfinite(bias[j]))
            return QK_SCALE_OVERFLOW;
    }
    for (size_t i = 0; args->row_scales && i < args->a.rows; i++)
        largest_row = i == 0 || args->row_scales[i] > largest_row ? args->row_scales[i] : largest_row;
    if (!isfinite(largest) || !isfinite(largest * largest_row))
        return QK_SCALE_OVERFLOW;
    p->columns.mult = mult;
    p->columns.bias = bias;
    return QK_OK;
}
