/* split_f32: every row against the definition, value by value, and against the scalar one, bit for bit, since
 * the definition leaves some digits open. */
#include "harness.h"

#include <math.h>

enum { LARGEST = 127 * 64516 + 64516 / 2 - 1 }; /* the largest integer whose high digit is not rounded to 128 */

static const float UNTOUCHED = -3.0f; /* no scale is negative */

static buffer x_buffer = {.name = "x"}, scales_buffer = {.name = "scales"},
              expected_scales = {.name = "expected scales"},
              digit_buffers[3] = {{.name = "high"}, {.name = "middle"}, {.name = "low"}},
              expected_digits[3];

typedef struct outputs {
    int8_t *digits[3];
    float *scales;
} outputs;

/* ----------------------------------------------------------------------------------------------- definition */

static void expect_scales(const outputs *got, size_t b, size_t row_blocks)
{
    const float step = got->scales[2 * row_blocks + b];
    int exponent;
    if (!(frexpf(step, &exponent) == 0.5f))
        fail("scales[2][%zu]: %.9g is no power of two", b, (double)step);
    if (got->scales[row_blocks + b] != 254 * step || got->scales[b] != 64516 * step)
        fail("scales[..][%zu]: %.9g, %.9g, %.9g are not 64516 : 254 : 1", b, (double)got->scales[b],
             (double)got->scales[row_blocks + b], (double)step);
}

/* Every sum of digits is exact in double. */
static void expect_digits(const outputs *got, const float *x, size_t k, double step, double largest)
{
    const int high = got->digits[0][k], middle = got->digits[1][k], low = got->digits[2][k];
    const double value = step * (64516 * high + 254 * middle + low), error = fabs(x[k] - value);
    if (high == -128 || middle == -128 || low == -128)
        fail("digits[..][%zu]: %d, %d, %d: beyond 127", k, high, middle, low);
    /* Half a step where the step is the least one, 2**-126. */
    if (!(error < largest * 0x1p-22 || error <= 0x1p-127))
        fail("digits[..][%zu]: %d, %d, %d of %g for %.9g: off by %g, max|x| being %.9g", k, high, middle, low,
             step, (double)x[k], error, largest);
}

static void expect_definition(const outputs *got, const float *x, size_t n, size_t block, size_t row_blocks)
{
    size_t b = 0;
    for (size_t at = 0; at < n; at += block, b++) {
        const size_t end = n - at < block ? n : at + block;
        float largest = 0;
        for (size_t k = at; k < end; k++)
            largest = fmaxf(largest, fabsf(x[k]));
        expect_scales(got, b, row_blocks);
        for (size_t k = at; k < end; k++)
            expect_digits(got, x, k, got->scales[2 * row_blocks + b], largest);
    }
    for (; b < row_blocks; b++)
        if (got->scales[b] != UNTOUCHED || got->scales[row_blocks + b] != UNTOUCHED)
            fail("scales[..][%zu]: written past the last block", b);
}

/* --------------------------------------------------------------------------------------------------- checks */

/* The values in x_buffer. */
static void check_values(qk_split_f32_type *kernel, qk_split_f32_type *oracle, size_t n, size_t block)
{
    const float *x = (const float *)x_buffer.data;
    const size_t blocks = (n + block - 1) / block, row_blocks = blocks + random_below(3);
    const size_t scale_count = 2 * row_blocks + blocks;
    outputs got, expected;
    int bad = 0;
    for (size_t k = 0; k < n; k++)
        bad |= !isfinite(x[k]);
    freeze(&x_buffer);
    for (int d = 0; d < 3; d++) {
        got.digits[d] = place(&digit_buffers[d], n, 1);
        expected.digits[d] = place_expected(&expected_digits[d], &digit_buffers[d]);
    }
    got.scales = place(&scales_buffer, scale_count, sizeof *got.scales);
    expected.scales = place_expected(&expected_scales, &scales_buffer);
    for (size_t i = 0; i < scale_count; i++)
        got.scales[i] = expected.scales[i] = UNTOUCHED;

    const int reported = kernel(x, n, block, got.digits, got.scales, row_blocks) != 0;
    expect_equal("a NaN or an infinity is reported", reported, bad);
    if (bad) {
        for (int d = 0; d < 3; d++)
            expect_intact(&digit_buffers[d]);
        expect_intact(&scales_buffer);
        return;
    }
    expect_definition(&got, x, n, block, row_blocks);
    oracle(x, n, block, expected.digits, expected.scales, row_blocks);
    for (int d = 0; d < 3; d++)
        expect_same(&digit_buffers[d], &expected_digits[d], U8);
    expect_same(&scales_buffer, &expected_scales, F32);
}

static void check_shapes(qk_split_f32_type *kernel, qk_split_f32_type *oracle)
{
    static const size_t blocks[] = {1, 5, 17, 32, 64, 96, 256};
    const size_t block_sizes = sizeof blocks / sizeof *blocks;
    for (size_t s = 0; s < size_count * block_sizes; s++)
        for (size_t variant = 0; variant < SIDE_COUNT * FLOAT_PATTERN_COUNT; variant++) {
            const size_t n = sizes[s / block_sizes], block = blocks[s % block_sizes];
            const size_t offset = (s + variant) % 4;
            const enum float_pattern pattern = variant / SIDE_COUNT;
            if (!begin_case(variant % SIDE_COUNT, offset, "n=%zu block=%zu data=%s offset=%zu", n, block,
                            float_pattern_names[pattern], offset))
                continue;
            float *x = place(&x_buffer, n, sizeof *x);
            for (size_t k = 0; k < n; k++)
                x[k] = pattern_float(pattern, k, 1, -100, 100);
            check_values(kernel, oracle, n, block);
        }
}

/* One value that decides at each place: a lane or a tail that is left out cannot hide behind its neighbors. */
static void check_places(qk_split_f32_type *kernel, qk_split_f32_type *oracle)
{
    static const char *const names[] = {"a NaN", "an infinity", "the largest"};
    for (size_t n = 1; n <= 80; n++) {
        if (!options.all && n > 34 && (n + 1) % 16 > 2) /* not next to a multiple of a vector's length */
            continue;
        for (size_t at = 0; at < n; at++)
            for (size_t variant = 0; variant < SIDE_COUNT * 3; variant++) {
                const size_t kind = variant / SIDE_COUNT, block = (n + at) % 2 ? 32 : 64;
                if (!begin_case(variant % SIDE_COUNT, 0, "n=%zu block=%zu with %s at %zu", n, block, names[kind],
                                at))
                    continue;
                const float deciding[] = {random_nan(), INFINITY, 1000}, sign = random_below(2) ? 1 : -1;
                float *x = place(&x_buffer, n, sizeof *x);
                for (size_t k = 0; k < n; k++)
                    x[k] = random_float(-1, 1);
                x[at] = sign * deciding[kind];
                check_values(kernel, oracle, n, block);
            }
    }
}

/* All such integers, or a sixteenth of them, on some power of two: each is to come out exactly. */
static void check_integers(qk_split_f32_type *kernel, qk_split_f32_type *oracle)
{
    enum { N = 0x8000 };
    for (int32_t from = -LARGEST, part = 0; from <= LARGEST; from += N - 1, part++) {
        const int has_zero = from <= 0 && from > -N, has_last = from > LARGEST - N;
        if (!options.all && part % 16 && !has_zero && !has_last)
            continue;
        if (!begin_case(AT_END, 0, "integers from %d", from))
            continue;
        const float step = ldexpf(1, random_int(-126, 104));
        float *x = place(&x_buffer, N, sizeof *x);
        x[0] = LARGEST * step;
        for (int32_t k = 1; k < N; k++)
            x[k] = (float)(from + k - 1 <= LARGEST ? from + k - 1 : 0) * step;
        check_values(kernel, oracle, N, N);
        for (size_t k = 0; k < N; k++) {
            const int value = 64516 * (int8_t)digit_buffers[0].data[k] +
                              254 * (int8_t)digit_buffers[1].data[k] + (int8_t)digit_buffers[2].data[k];
            expect_equal("the digits of an integer", value, (long long)(x[k] / step));
        }
    }
}

void check_split_f32(const kernel_row *row)
{
    check_shapes(row->kernel.split_f32, qk_split_f32_scalar);
    check_places(row->kernel.split_f32, qk_split_f32_scalar);
    check_integers(row->kernel.split_f32, qk_split_f32_scalar);
}

timing bench_split_f32(kernel_pointer kernel)
{
    enum { N = 4096, BLOCK = 128 };
    static float x[N], scales[3 * N / BLOCK];
    static int8_t digits[3][N];
    int8_t *const rows[] = {digits[0], digits[1], digits[2]};
    stopwatch w = {0};
    for (size_t k = 0; k < N; k++)
        x[k] = random_float(-1, 1);
    while (keep_timing(&w))
        kernel.split_f32(x, N, BLOCK, rows, scales, N / BLOCK);
    return timing_of(&w, N, ELEMENTS);
}
