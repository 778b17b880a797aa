/* minmax_f32, minmax_cols_f32. Ranges are compared as numbers, since the sign of a zero is left open. */
#include "harness.h"

#include <math.h>

static buffer x_buffer = {.name = "x"}, low_buffer = {.name = "low"}, high_buffer = {.name = "high"},
              expected_low = {.name = "expected low"}, expected_high = {.name = "expected high"};

static int plain_minmax(const float *x, size_t n, float *low, float *high)
{
    int nan = 0;
    for (size_t i = 0; i < n; i++) {
        nan |= isnan(x[i]);
        *low = fminf(*low, x[i]);
        *high = fmaxf(*high, x[i]);
    }
    return nan != 0;
}

static int plain_minmax_cols(const float *x, size_t n, float *low, float *high)
{
    int nan = 0;
    for (size_t i = 0; i < n; i++)
        nan |= plain_minmax(x + i, 1, low + i, high + i);
    return nan;
}

/* The ranges before the call: empty, at zero, or some range. */
static void start_ranges(float *low, float *high, float *low2, float *high2, size_t ranges)
{
    for (size_t r = 0; r < ranges; r++) {
        float width = random_float(0, 100);
        switch (random_below(3)) {
        case 0: low[r] = INFINITY; high[r] = -INFINITY; break;
        case 1: low[r] = high[r] = 0.0f; break;
        default: low[r] = random_float(-200, 100); high[r] = low[r] + width; break;
        }
        low2[r] = low[r];
        high2[r] = high[r];
    }
}

static void check_range(qk_minmax_f32_type *kernel, qk_minmax_f32_type *oracle, float *x, size_t n,
                        size_t ranges, int with_nan)
{
    float *low = place(&low_buffer, ranges, sizeof *low);
    float *high = place(&high_buffer, ranges, sizeof *high);
    float *low2 = place_expected(&expected_low, &low_buffer);
    float *high2 = place_expected(&expected_high, &high_buffer);
    start_ranges(low, high, low2, high2, ranges);
    freeze(&x_buffer);
    oracle(x, n, low2, high2);
    expect_equal("a NaN is reported", kernel(x, n, low, high) != 0, with_nan);
    if (with_nan) {
        expect_intact(&low_buffer);
        expect_intact(&high_buffer);
    } else {
        expect_same(&low_buffer, &expected_low, F32_VALUE);
        expect_same(&high_buffer, &expected_high, F32_VALUE);
    }
}

static void check_minmax(qk_minmax_f32_type *kernel, qk_minmax_f32_type *oracle, int cols)
{
    for (size_t s = 0; s < size_count; s++)
        for (size_t variant = 0; variant < SIDE_COUNT * 4 * (FLOAT_PATTERN_COUNT + 1); variant++) {
            const size_t n = sizes[s], offset = variant / SIDE_COUNT % 4;
            const page_side side = variant % SIDE_COUNT;
            const int pattern = (int)(variant / SIDE_COUNT / 4);
            const int with_nan = pattern == FLOAT_PATTERN_COUNT;
            if (with_nan && n == 0)
                continue;
            if (!begin_case(side, offset, "n=%zu data=%s offset=%zu", n,
                            with_nan ? "mixed, a NaN" : float_pattern_names[pattern], offset))
                continue;
            float *x = place(&x_buffer, n, sizeof *x);
            for (size_t i = 0; i < n; i++)
                x[i] = pattern_float(with_nan ? FLOATS_MIXED : pattern, i, 1, -100, 100);
            if (with_nan)
                x[random_place(n)] = random_nan();
            check_range(kernel, oracle, x, n, cols ? n : 1, with_nan);
        }

    /* One extreme at each place: a lane or a tail that is left out cannot hide behind its neighbors. */
    for (size_t n = 1; n <= 80; n++)
        for (page_side side = 0; side < SIDE_COUNT; side++)
            for (size_t at = 0; at < n; at++) {
                if (!begin_case(side, 0, "n=%zu extreme at %zu", n, at))
                    continue;
                float *x = place(&x_buffer, n, sizeof *x);
                for (size_t i = 0; i < n; i++)
                    x[i] = random_float(-1, 1);
                x[at] = random_below(2) ? -1000.0f : 1000.0f;
                check_range(kernel, oracle, x, n, cols ? n : 1, 0);
            }
}

void check_minmax_f32(const kernel_row *row)
{
    check_minmax(row->kernel.minmax_f32, ORACLE(row, minmax_f32, plain_minmax), 0);
}

void check_minmax_cols_f32(const kernel_row *row)
{
    check_minmax(row->kernel.minmax_cols_f32, ORACLE(row, minmax_cols_f32, plain_minmax_cols), 1);
}

static timing bench_minmax(qk_minmax_f32_type *kernel)
{
    enum { N = 4096 };
    static float x[N], low[N], high[N];
    stopwatch w = {0};
    for (size_t i = 0; i < N; i++)
        x[i] = random_float(-1, 1);
    while (keep_timing(&w))
        kernel(x, N, low, high);
    return timing_of(&w, N, ELEMENTS);
}

timing bench_minmax_f32(kernel_pointer kernel)
{
    return bench_minmax(kernel.minmax_f32);
}

timing bench_minmax_cols_f32(kernel_pointer kernel)
{
    return bench_minmax(kernel.minmax_cols_f32);
}
