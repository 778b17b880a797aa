/* hadamard_f32. Scalar rows are compared with the definition, sums of products with +1 and -1 in double, within the
 * error of a tree of float additions. */
#include "harness.h"

#include <math.h>
#include <string.h>

static buffer x_buffer = {.name = "x"}, factors_buffer = {.name = "factors"}, y_buffer = {.name = "y"},
              expected_buffer = {.name = "expected"};

/* Fail unless output i of a block is what its inputs give. Says nothing where a sum may overflow. */
static void expect_output(const float *x, const float *factors, const float *y, size_t block, int after, size_t i)
{
    double sum = 0, magnitude = 0;
    for (size_t j = 0; j < block; j++) {
        const double term = after ? x[j] : (double)x[j] * factors[j];
        sum += __builtin_parityll(i & j) ? -term : term;
        magnitude += fabs(term);
    }
    if (!(magnitude < 0x1p127))
        return;
    const double expected = after ? sum * factors[i] : sum, spread = after ? magnitude * fabsf(factors[i]) : magnitude;
    /* log2(block) sums and a product, each off by half a unit in the last place; denormals by half the least float. */
    const double bound = (__builtin_ctzll(block) + 1) * 0x1p-24 * spread + block * 0x1p-150;
    if (!(fabs(y[i] - expected) <= bound))
        fail("y[%zu]: expected %.9g within %.2g, got %.9g", i, expected, bound, (double)y[i]);
}

static void expect_definition(const float *x, const float *factors, const float *y, size_t n, size_t block, int after)
{
    enum { MOST = 64 };
    for (size_t at = 0; at < n; at += block)
        for (size_t c = 0; c < block && c < MOST; c++)
            expect_output(x + at, factors + at, y + at, block, after, block <= MOST ? c : random_place(block));
}

/* Which NaN comes out is not specified. */
static void unify_nans(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (isnan(x[i]))
            x[i] = NAN;
}

/* With the values in x_buffer; in place too. */
static void check_values(const kernel_row *row, size_t n, size_t block, int after)
{
    qk_hadamard_f32_type *kernel = row->kernel.hadamard_f32, *oracle = ORACLE(row, hadamard_f32, NULL);
    const float *x = (const float *)x_buffer.data;
    float *factors = place(&factors_buffer, n, sizeof *factors), *y = place(&y_buffer, n, sizeof *y);
    float *expected = place_expected(&expected_buffer, &y_buffer);
    for (size_t i = 0; i < n; i++)
        factors[i] = (random_below(2) ? 1.0f : -1.0f) / sqrtf((float)block);
    freeze(&x_buffer);
    freeze(&factors_buffer);
    kernel(x, n, block, factors, after, y);
    if (oracle)
        oracle(x, n, block, factors, after, expected);
    else {
        expect_definition(x, factors, y, n, block, after);
        memcpy(expected, y, n * sizeof *y);
    }
    unify_nans(expected, n);
    for (int in_place = 0; in_place < 2; in_place++) {
        begin_variant(in_place ? "in place" : "");
        if (in_place) {
            memcpy(y, x, n * sizeof *y);
            kernel(y, n, block, factors, after, y);
        }
        unify_nans(y, n);
        expect_same(&y_buffer, &expected_buffer, F32);
    }
}

static void check_shapes(const kernel_row *row)
{
    static const size_t blocks[] = {1, 2, 3, 5, 11};
    const size_t numbers = sizeof blocks / sizeof *blocks;
    for (size_t s = 0; s < 11 * numbers; s++)
        for (size_t variant = 0; variant < SIDE_COUNT * 2 * (FLOAT_PATTERN_COUNT + 1); variant++) {
            const size_t block = (size_t)1 << s / numbers, n = block * blocks[s % numbers], offset = (s + variant) % 4;
            const int after = variant / SIDE_COUNT % 2, pattern = (int)(variant / SIDE_COUNT / 2);
            const int with_nans = pattern == FLOAT_PATTERN_COUNT;
            if (!begin_case(variant % SIDE_COUNT, offset, "n=%zu block=%zu factors %s data=%s offset=%zu", n, block,
                            after ? "after" : "before", with_nans ? "random, NaNs" : float_pattern_names[pattern],
                            offset))
                continue;
            float *x = place(&x_buffer, n, sizeof *x);
            for (size_t i = 0; i < n; i++)
                x[i] = pattern_float(with_nans ? FLOATS_RANDOM : pattern, i, 1, -100, 100);
            if (with_nans)
                x[random_place(n)] = random_nan();
            check_values(row, n, block, after);
        }
}

/* All ways to cut a long block into passes. */
static void check_long_blocks(const kernel_row *row)
{
    for (size_t block = 2048; block <= 1 << 17; block *= 2)
        for (int after = 0; after < 2; after++) {
            if (!begin_case(AT_END, 0, "n=%zu, one block, factors %s", block, after ? "after" : "before"))
                continue;
            float *x = place(&x_buffer, block, sizeof *x);
            for (size_t i = 0; i < block; i++)
                x[i] = random_float(-1, 1);
            check_values(row, block, block, after);
        }
}

void check_hadamard_f32(const kernel_row *row)
{
    check_shapes(row);
    check_long_blocks(row);
}

/* Rows in turns, as many as the L2 cache holds and the L1 cache does not, and memcpy of the same. */
timing bench_hadamard_f32(kernel_pointer kernel)
{
    enum { ROWS = 16, N = 4096 };
    static float x[ROWS][N], y[ROWS][N], factors[N];
    stopwatch w = {0}, copying = {0};
    for (size_t i = 0; i < N; i++) {
        factors[i] = 0x1p-6f;
        for (size_t row = 0; row < ROWS; row++)
            x[row][i] = random_float(-1, 1);
    }
    for (size_t row = 0; keep_timing(&w); row = (row + 1) % ROWS)
        kernel.hadamard_f32(x[row], N, N, factors, 0, y[row]);
    for (size_t row = 0; keep_timing(&copying); row = (row + 1) % ROWS)
        memcpy(y[row], x[row], sizeof *x);
    timing t = timing_of(&w, N, ELEMENTS);
    t.memcpy_ns = timing_of(&copying, N, ELEMENTS).ns;
    return t;
}
