/* finish_f32. */
#include "harness.h"

#include <math.h>

static buffer sums_buffer = {.name = "sums"}, bias_buffer = {.name = "bias"}, out_buffer = {.name = "out"},
              expected_out = {.name = "expected out"};

/* A sum or a product of two floats in double, rounded to float, is rounded as if once. */
static int plain_finish(const float *sums, size_t ld, size_t rows, size_t n, float scale, const float *bias,
                        float low, float high, float *out)
{
    int not_finite = 0;
    for (size_t j = 0; j < n; j++) {
        float y = sums[j];
        for (size_t r = 1; r < rows; r++)
            y = (float)((double)y + (double)sums[r * ld + j]);
        y = (float)((double)y * (double)scale);
        y = (float)((double)y + (double)bias[j]);
        not_finite |= !isfinite(y);
        out[j] = y < low ? low : y > high ? high : y;
    }
    return not_finite;
}

static float finite_float(enum float_pattern pattern, size_t i)
{
    const float x = pattern_float(pattern, i, 1, -100, 100);
    return isinf(x) ? 1 : x;
}

static void check_shape(const kernel_row *row, size_t n, size_t rows, size_t ld, float low, float high,
                        enum float_pattern pattern)
{
    float *sums = place(&sums_buffer, n ? (rows - 1) * ld + n : 0, sizeof *sums);
    float *bias = place(&bias_buffer, n, sizeof *bias);
    float *out = place(&out_buffer, n, sizeof *out);
    float *expected = place_expected(&expected_out, &out_buffer);
    const float scales[] = {1, random_float(0.001f, 2), 0x1p-126f}, scale = scales[random_below(3)];
    const int with_bias = (int)random_below(2);
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < n; j++)
            sums[r * ld + j] = finite_float(pattern, j);
    for (size_t j = 0; j < n; j++)
        bias[j] = with_bias ? finite_float(pattern, random_below(2)) : -0.0f;
    freeze(&sums_buffer);
    freeze(&bias_buffer);
    begin_variant("scale=%g bias=%d", (double)scale, with_bias);
    qk_finish_f32_type *oracle = ORACLE(row, finish_f32, plain_finish);
    const int not_finite = oracle(sums, ld, rows, n, scale, bias, low, high, expected) != 0;
    const int reported = row->kernel.finish_f32(sums, ld, rows, n, scale, bias, low, high, out) != 0;
    expect_equal("an infinity is reported", reported, not_finite);
    expect_same(&out_buffer, &expected_out, F32);
}

/* One sum at each place, which the clamp hides unless it is a NaN. */
static void check_places(const kernel_row *row)
{
    static const char *const names[] = {"a NaN", "infinity", "minus infinity", "a large product", "a large sum"};
    const size_t kinds = sizeof names / sizeof *names;
    for (size_t n = 1; n <= 80; n++)
        for (size_t at = 0; at < n; at++)
            for (size_t variant = 0; variant < SIDE_COUNT * kinds; variant++) {
                const size_t kind = variant / SIDE_COUNT;
                if (!begin_case(variant % SIDE_COUNT, 0, "n=%zu with %s at %zu", n, names[kind], at))
                    continue;
                float *sums = place(&sums_buffer, 2 * n, sizeof *sums), *bias = place(&bias_buffer, n, sizeof *bias);
                float *out = place(&out_buffer, n, sizeof *out);
                for (size_t j = 0; j < 2 * n; j++)
                    sums[j] = random_float(-1, 1);
                for (size_t j = 0; j < n; j++)
                    bias[j] = 1;
                sums[n + at] = (const float[]){NAN, INFINITY, -INFINITY, 0x1p127f, -0x1.fffffep127f}[kind];
                if (kind == 4) /* the sum of both */
                    sums[at] = -0x1.fffffep127f;
                freeze(&sums_buffer);
                freeze(&bias_buffer);
                qk_finish_f32_type *kernel = row->kernel.finish_f32;
                expect_equal("it is reported", kernel(sums, n, 2, n, 2, bias, 0, 6, out) != 0, 1);
                expect_equal("without it nothing is", kernel(sums, n, 1, at, 2, bias, 0, 6, out) != 0, 0);
            }
}

void check_finish_f32(const kernel_row *row)
{
    check_places(row);
    static const size_t row_counts[] = {1, 2, 3};
    static const float bounds[][2] = {
        {-INFINITY, INFINITY}, {0, INFINITY}, {0, 6}, {-INFINITY, 1}, {-1, -0.5f}};
    const size_t bound_count = sizeof bounds / sizeof *bounds;
    for (size_t s = 0; s < size_count * 3; s++)
        for (size_t variant = 0; variant < SIDE_COUNT * FLOAT_PATTERN_COUNT * bound_count; variant++) {
            const size_t n = sizes[s / 3], rows = row_counts[s % 3], offset = (s + variant) % 4;
            const size_t ld = n + (s + variant / SIDE_COUNT) % 3 * 16;
            const enum float_pattern pattern = variant / SIDE_COUNT % FLOAT_PATTERN_COUNT;
            const float *bound = bounds[variant / SIDE_COUNT / FLOAT_PATTERN_COUNT];
            if (begin_case(variant % SIDE_COUNT, offset,
                           "n=%zu rows=%zu ld=%zu in [%g, %g] data=%s offset=%zu", n, rows, ld,
                           (double)bound[0], (double)bound[1], float_pattern_names[pattern], offset))
                check_shape(row, n, rows, ld, bound[0], bound[1], pattern);
        }
}

timing bench_finish_f32(kernel_pointer kernel)
{
    enum { N = 64, ROWS = 3 };
    static float sums[ROWS * N], bias[N], out[N];
    stopwatch w = {0};
    for (size_t i = 0; i < ROWS * N; i++)
        sums[i] = random_float(-1, 1);
    while (keep_timing(&w))
        kernel.finish_f32(sums, N, ROWS, N, 0.5f, bias, -1, 1, out);
    return timing_of(&w, N, ELEMENTS);
}
