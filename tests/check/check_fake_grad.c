/* The gradients of fake_quantize, with one scale or one a column, with and without the sums. */
#include "affine_parameters.h"

#include <math.h>

static buffer dy_buffer = {.name = "dy"}, x_buffer = {.name = "x"}, dx_buffer = {.name = "dx"},
              dscale_buffer = {.name = "dscale"}, dclip_buffer = {.name = "dclip"},
              expected_dx = {.name = "expected dx"}, expected_dscale = {.name = "expected dscale"},
              expected_dclip = {.name = "expected dclip"};

/* By cases, in double; c and lane: the index of the parameters and of the sums of value i. */
#define DEFINE_PLAIN(form, c, lane)                                                                \
    static int plain##form(const float *dy, const float *x, size_t n, const float *scale,          \
                           const int32_t *zero_point, qk_qtype type, float *dx, double *dscale,    \
                           double *dclip)                                                          \
    {                                                                                              \
        int nan = 0;                                                                               \
        for (size_t i = 0; i < n; i++) {                                                           \
            const double t = x[i] / scale[c], q = rint(t) + zero_point[c];                         \
            const int below = q < type.qmin, above = q > type.qmax;                                \
            const double factor = below   ? type.qmin - zero_point[c]                              \
                                  : above ? type.qmax - zero_point[c]                              \
                                          : rint(t) - t;                                           \
            nan |= isnan(x[i]);                                                                    \
            dx[i] = below || above ? 0.0f : dy[i];                                                 \
            if (dscale) {                                                                          \
                dscale[lane] += dy[i] * factor;                                                    \
                dclip[lane] += below || above ? dy[i] : 0.0;                                       \
            }                                                                                      \
        }                                                                                          \
        return nan;                                                                                \
    }

DEFINE_PLAIN(, 0, i % QK_GRAD_LANES)
DEFINE_PLAIN(_cols, i, i)

/* Gradients of both signs, and of any size: sums of floats do not overflow a double. */
static float random_gradient(void)
{
    return random_below(2) ? random_float(-1, 1) : pattern_float(FLOATS_ANY_BITS, random_below(2), 1, 0, 0);
}

static double *place_sums(buffer *b, size_t n)
{
    double *sums = place(b, n, sizeof *sums);
    for (size_t i = 0; i < n; i++)
        sums[i] = random_below(3) ? random_float(-100, 100) : 0;
    return sums;
}

static double *place_copy(buffer *copy, const buffer *b)
{
    double *sums = place_expected(copy, b);
    for (size_t i = 0; i < b->size / sizeof *sums; i++)
        sums[i] = ((const double *)(const void *)b->data)[i];
    return sums;
}

static void check_on(qk_fake_grad_f32_type *kernel, qk_fake_grad_f32_type *oracle, size_t n, int cols, qk_qtype type,
                     enum float_pattern pattern, int with_nan, int summed)
{
    const float *scale = place_scales(cols ? n : 1);
    const int32_t *zero_point = place_zero_points(cols ? n : 1, type);
    float *x = place(&x_buffer, n, sizeof *x), *dy = place(&dy_buffer, n, sizeof *dy);
    for (size_t i = 0; i < n; i++) {
        const size_t c = cols ? i : 0;
        x[i] = pattern_float(pattern, i, scale[c], type.qmin - zero_point[c], type.qmax - zero_point[c]);
        do
            dy[i] = random_gradient();
        while (isinf(dy[i])); /* sums of infinities are NaN, whose bits are not defined */
    }
    if (with_nan)
        x[random_place(n)] = random_nan();
    freeze(&x_buffer);
    freeze(&dy_buffer);

    float *dx = place(&dx_buffer, n, sizeof *dx), *want_dx = place_expected(&expected_dx, &dx_buffer);
    double *dscale = NULL, *dclip = NULL, *want_dscale = NULL, *want_dclip = NULL;
    if (summed) {
        dscale = place_sums(&dscale_buffer, cols ? n : QK_GRAD_LANES);
        dclip = place_sums(&dclip_buffer, cols ? n : QK_GRAD_LANES);
        want_dscale = place_copy(&expected_dscale, &dscale_buffer);
        want_dclip = place_copy(&expected_dclip, &dclip_buffer);
    }
    oracle(dy, x, n, scale, zero_point, type, want_dx, want_dscale, want_dclip);
    expect_equal("a NaN is reported", kernel(dy, x, n, scale, zero_point, type, dx, dscale, dclip) != 0, with_nan);
    if (with_nan) {
        expect_intact(&dx_buffer);
        return;
    }
    expect_same(&dx_buffer, &expected_dx, F32);
    if (summed) {
        expect_same(&dscale_buffer, &expected_dscale, F64);
        expect_same(&dclip_buffer, &expected_dclip, F64);
    }
}

static void check_fake_grad(qk_fake_grad_f32_type *kernel, qk_fake_grad_f32_type *oracle, int cols)
{
    for (size_t s = 0; s < size_count; s++)
        for (size_t variant = 0; variant < AFFINE_TYPE_COUNT * (FLOAT_PATTERN_COUNT + 1) * 2 * SIDE_COUNT; variant++) {
            const size_t n = sizes[s], offset = (variant / SIDE_COUNT + variant / 12) % 4;
            const page_side side = variant % SIDE_COUNT;
            const int summed = variant / SIDE_COUNT % 2;
            const affine_type *t = &affine_types[variant / SIDE_COUNT / 2 % AFFINE_TYPE_COUNT];
            const int pattern = (int)(variant / SIDE_COUNT / 2 / AFFINE_TYPE_COUNT);
            const int with_nan = pattern == FLOAT_PATTERN_COUNT;
            if (with_nan && n == 0)
                continue;
            if (begin_case(side, offset, "n=%zu type=%s data=%s sums=%d offset=%zu", n, t->name,
                           with_nan ? "mixed, a NaN" : float_pattern_names[pattern], summed, offset))
                check_on(kernel, oracle, n, cols, t->type, with_nan ? FLOATS_MIXED : pattern, with_nan, summed);
        }
}

/* ------------------------------------------------------------------------------------------- timing */

enum { BENCH_N = 4096 };
static float bench_dy[BENCH_N], bench_x[BENCH_N], bench_dx[BENCH_N], bench_scale[BENCH_N];
static int32_t bench_zero_point[BENCH_N];
static double bench_dscale[BENCH_N], bench_dclip[BENCH_N];

static timing bench_fake_grad(qk_fake_grad_f32_type *kernel)
{
    stopwatch w = {0};
    for (size_t i = 0; i < BENCH_N; i++) {
        bench_dy[i] = random_float(-1, 1);
        bench_x[i] = random_float(-1, 1);
        bench_scale[i] = 1.0f / 127;
    }
    while (keep_timing(&w))
        kernel(bench_dy, bench_x, BENCH_N, bench_scale, bench_zero_point, affine_types[0].type, bench_dx, bench_dscale,
               bench_dclip);
    return timing_of(&w, BENCH_N, ELEMENTS);
}

/* -------------------------------------------------------------------------------------------- slots */

#define DEFINE_SLOT(form, cols)                                                                    \
    void check_fake_grad##form##_f32(const kernel_row *row)                                        \
    {                                                                                              \
        check_fake_grad(row->kernel.fake_grad##form##_f32,                                         \
                        ORACLE(row, fake_grad##form##_f32, plain##form), cols);                    \
    }                                                                                              \
    timing bench_fake_grad##form##_f32(kernel_pointer kernel)                                      \
    {                                                                                              \
        return bench_fake_grad(kernel.fake_grad##form##_f32);                                      \
    }

DEFINE_SLOT(, 0)
DEFINE_SLOT(_cols, 1)
