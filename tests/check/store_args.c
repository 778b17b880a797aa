/* See store_args.h. */
#include "store_args.h"

#include <math.h>

static buffer column_term = {.name = "column_term"}, b_zero_point = {.name = "b_zero_point"},
              column_sums = {.name = "column_sums"}, mult = {.name = "mult"}, bias = {.name = "bias"},
              fixed_mult = {.name = "fixed_mult"}, fixed_left = {.name = "fixed_left"},
              fixed_right = {.name = "fixed_right"}, row_sums = {.name = "row_sums"},
              a_zero_point = {.name = "a_zero_point"}, row_scales = {.name = "row_scales"};

const store_output store_outputs[QK_OUT_COUNT] = {
    [QK_OUT_S32] = {"s32", 4, S32, 0, 0},
    [QK_OUT_F32] = {"f32", 4, F32, 1, 0},
    [QK_OUT_Q8] = {"q8", 1, U8, 1, 0},
    [QK_OUT_Q8_FIXED] = {"q8_fixed", 1, U8, 0, 1},
};

const char *const sum_pattern_names[] = {"zero", "lowest", "highest", "small", "large", "any"};

int32_t random_sum(enum sum_pattern pattern)
{
    switch (pattern) {
    case SUMS_ZERO: return 0;
    case SUMS_LOWEST: return INT32_MIN;
    case SUMS_HIGHEST: return INT32_MAX;
    case SUMS_SMALL: return random_int(-1200, 1200);
    case SUMS_LARGE: return random_int(-(1 << 26), 1 << 26); /* float32 has to round */
    default: return random_int(INT32_MIN, INT32_MAX);
    }
}

static const int32_t *place_ints(buffer *b, size_t n, int32_t low, int32_t high)
{
    int32_t *x = place(b, n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_int(low, high);
    freeze(b);
    return x;
}

static float random_mult(void)
{
    switch (random_below(6)) {
    case 0: return ldexpf(1.0f, -random_int(1, 8)); /* ties */
    case 1: return float_of_bits((uint32_t)random_below(100)); /* products that vanish, to -0.0 too */
    case 2: return random_float(1e28f, 1e34f);
    default: return ldexpf(random_float(0.5f, 1.0f), -random_int(0, 24));
    }
}

static float random_bias(void)
{
    switch (random_below(5)) {
    case 0: return random_below(2) ? -0.0f : 0.0f;
    case 1: return (float)random_int(-50, 50) + 0.5f;
    case 2: return random_float(-1e38f, 1e38f);
    default: return random_float(-100, 100);
    }
}

static float no_bias(void)
{
    return -0.0f;
}

static float ordinary_factor(void)
{
    return random_float(0.001f, 2.0f);
}

static const float *place_floats(buffer *b, size_t n, float (*draw)(void))
{
    float *x = place(b, n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = draw();
    freeze(b);
    return x;
}

/* A shift to the left or to the right, and a Q31 multiplier: normalized, or 0 when the scale vanishes. */
static void place_fixed(qk_store_args *args, size_t n)
{
    int32_t *factor = place(&fixed_mult, n, sizeof *factor);
    int32_t *left = place(&fixed_left, n, sizeof *left);
    int32_t *right = place(&fixed_right, n, sizeof *right);
    for (size_t i = 0; i < n; i++) {
        const int exponent = random_below(2) ? random_int(-31, 30) : random_int(-10, 1);
        const int32_t extremes[] = {0, 1 << 30, INT32_MAX};
        factor[i] = random_below(8) ? random_int(1 << 30, INT32_MAX) : extremes[random_below(3)];
        left[i] = exponent > 0 ? exponent : 0;
        right[i] = exponent < 0 ? -exponent : 0;
    }
    freeze(&fixed_mult);
    freeze(&fixed_left);
    freeze(&fixed_right);
    args->fixed_mult = factor;
    args->fixed_left = left;
    args->fixed_right = right;
}

qk_store_args random_store_args(const store_output *output, size_t columns, int form, int32_t largest_term)
{
    qk_store_args args = {.column_term = place_ints(&column_term, columns, -largest_term, largest_term)};
    if (form & ROW_SUMS)
        args.b_zero_point = place_ints(&b_zero_point, columns, -255, 255);
    if (form & A_ZERO_POINT)
        args.column_sums = place_ints(&column_sums, columns, INT32_MIN, INT32_MAX);
    if (output->is_float) {
        args.mult = place_floats(&mult, columns, random_mult);
        args.bias = place_floats(&bias, columns, form & BIAS ? random_bias : no_bias);
    }
    if (output->is_fixed)
        place_fixed(&args, columns);

    const int is_signed = (int)random_below(2), relu = random_below(3) == 0;
    const int32_t qmin = is_signed ? -128 : 0, qmax = is_signed ? 127 : 255;
    args.zero_point = random_int(qmin, qmax);
    args.fixed_low = relu ? 0 : qmin - args.zero_point;
    args.fixed_high = qmax - args.zero_point;
    args.low = output->type == U8 ? (float)args.fixed_low : relu ? 0.0f : -INFINITY;
    args.high = output->type == U8 ? (float)args.fixed_high : random_below(2) ? 6.0f : INFINITY;
    return args;
}

qk_store_rows random_store_rows(const store_output *output, size_t m, int form)
{
    qk_store_rows rows = {0};
    if (form & ROW_SUMS)
        rows.row_sums = place_ints(&row_sums, m, INT32_MIN, INT32_MAX);
    if (form & A_ZERO_POINT)
        rows.a_zero_point = place_ints(&a_zero_point, m, -255, 255);
    if (output->is_float && form & ROW_SCALES)
        rows.row_scales = place_floats(&row_scales, m, ordinary_factor);
    return rows;
}

void set_ordinary_mult(qk_store_args *args, size_t columns)
{
    args->mult = place_floats(&mult, columns, ordinary_factor);
}
