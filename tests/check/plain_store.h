/* What the scalar store kernels are compared with: the formulas of qk_store_args in wider arithmetic. */
#ifndef CHECK_PLAIN_STORE_H
#define CHECK_PLAIN_STORE_H

#include "kernels.h"

#include <math.h>
#include <string.h>

static inline int32_t plain_acc(int32_t sum, size_t i, size_t c, const qk_store_args *args,
                                const qk_store_rows *rows)
{
    uint64_t acc = (uint64_t)((int64_t)sum + args->column_term[c]);
    if (rows->row_sums)
        acc -= (uint64_t)((int64_t)rows->row_sums[i] * args->b_zero_point[c]);
    if (rows->a_zero_point)
        acc -= (uint64_t)((int64_t)rows->a_zero_point[i] * args->column_sums[c]);
    return (int32_t)(uint32_t)acc;
}

/* In double, products of two floats are exact, and sums are near enough for a second rounding to be harmless: each
 * step is rounded to float32 once. */
static inline float plain_scaled(int32_t acc, size_t i, size_t c, const qk_store_args *args,
                                 const qk_store_rows *rows)
{
    float mult = args->mult[c];
    if (rows->row_scales)
        mult = (float)((double)mult * (double)rows->row_scales[i]);
    float y = (float)((double)(float)acc * (double)mult);
    y = (float)((double)y + (double)args->bias[c]);
    return y < args->low ? args->low : y > args->high ? args->high : y;
}

static inline int32_t plain_q8(int32_t acc, size_t i, size_t c, const qk_store_args *args,
                               const qk_store_rows *rows)
{
    return (int32_t)rint((double)plain_scaled(acc, i, c, args, rows)) + args->zero_point;
}

/* TFLite's reference: a saturating shift to the left; the high half of the product, by a division that truncates;
 * a division by a power of two, rounded half away from zero. */
static inline int32_t plain_q8_fixed(int32_t acc, size_t c, const qk_store_args *args)
{
    int64_t x = (int64_t)acc * ((int64_t)1 << args->fixed_left[c]);
    x = x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x;
    int64_t product = x * args->fixed_mult[c];
    int64_t high = (product + (product >= 0 ? 1 << 30 : 1 - (1 << 30))) / ((int64_t)1 << 31);
    int64_t q = llround(ldexp((double)high, -args->fixed_right[c]));
    q = q < args->fixed_low ? args->fixed_low : q > args->fixed_high ? args->fixed_high : q;
    return (int32_t)q + args->zero_point;
}

/* value: of `acc`, the accumulator of row i and column c. */
#define DEFINE_PLAIN(slot, out_type, value)                                                        \
    static void plain_##slot(const int32_t *tile, size_t ld, size_t m, size_t n,                   \
                             const qk_store_args *args, size_t column, const qk_store_rows *rows,  \
                             void *out, size_t out_row_bytes)                                      \
    {                                                                                              \
        for (size_t i = 0; i < m; i++)                                                             \
            for (size_t c = column; c < column + n; c++) {                                         \
                int32_t acc = plain_acc(tile[i * ld + c - column], i, c, args, rows);              \
                out_type y = (out_type)(value);                                                    \
                memcpy((char *)out + i * out_row_bytes + (c - column) * sizeof y, &y, sizeof y);   \
            }                                                                                      \
    }

DEFINE_PLAIN(store_s32, int32_t, acc)
DEFINE_PLAIN(store_f32, float, plain_scaled(acc, i, c, args, rows))
DEFINE_PLAIN(store_q8, uint8_t, plain_q8(acc, i, c, args, rows))
DEFINE_PLAIN(store_q8_fixed, uint8_t, plain_q8_fixed(acc, c, args))

#endif
