/* gelu_f32, silu_f32. Scalar rows are compared with the definitions in long double, within the error that
 * csrc/activation.h states. */
#include "harness.h"

#include <math.h>

static buffer x_buffer = {.name = "x"}, expected_buffer = {.name = "expected"};

typedef struct activation {
    qk_activate_f32_type *kernel, *oracle; /* oracle: NULL for a scalar row */
    long double (*plain)(long double x);
    long double max_ulp;
} activation;

/* erfc rather than 1 + erf, which cancels for x < 0. An infinite x times 0 would be a NaN. */
static long double plain_gelu(long double x)
{
    return x == -INFINITY ? -0.0L : x * (0.5L * erfcl(-x * 0.707106781186547524400844362104849039L));
}

static long double plain_silu(long double x)
{
    return x == -INFINITY ? -0.0L : x / (1 + expl(-x));
}

/* Fail unless y is what x gives, to within max_ulp spacings of the floats around `exact`. */
static void expect_near(float x, float y, long double exact, long double max_ulp)
{
    if (isnan(x) ? isnan(y) : isinf(exact) ? y == exact : 0)
        return;
    if (isnan(x) || isinf(exact) || !isfinite(y) || !signbit(y) != !signbit(x))
        fail("f(%a): expected %La, got %a", (double)x, exact, (double)y);
    const int exponent = exact == 0 ? -126 : ilogbl(exact);
    const long double error = fabsl(y - exact) / ldexpl(1, (exponent < -126 ? -126 : exponent) - 23);
    if (error > max_ulp)
        fail("f(%a): expected %La, got %a, off by %.2Lf ulp", (double)x, exact, (double)y, error);
}

/* x_buffer has been filled. */
static void check_on(const activation *f, float *x, size_t n)
{
    float *expected = place_expected(&expected_buffer, &x_buffer);
    for (size_t i = 0; i < n; i++)
        expected[i] = x[i];
    f->kernel(x, n);
    if (f->oracle) {
        f->oracle(expected, n);
        expect_same(&x_buffer, &expected_buffer, F32);
    } else {
        for (size_t i = 0; i < n; i++)
            expect_near(expected[i], x[i], f->plain(expected[i]), f->max_ulp);
        expect_intact(&x_buffer);
    }
}

static void check_sizes(const activation *f)
{
    for (size_t s = 0; s < size_count; s++)
        for (size_t variant = 0; variant < SIDE_COUNT * 4 * (FLOAT_PATTERN_COUNT + 1); variant++) {
            const size_t n = sizes[s], offset = variant / SIDE_COUNT % 4;
            const int pattern = (int)(variant / SIDE_COUNT / 4);
            const int with_nans = pattern == FLOAT_PATTERN_COUNT;
            if (!begin_case(variant % SIDE_COUNT, offset, "n=%zu data=%s offset=%zu", n,
                            with_nans ? "mixed, NaNs" : float_pattern_names[pattern], offset))
                continue;
            float *x = place(&x_buffer, n, sizeof *x);
            for (size_t i = 0; i < n; i++)
                x[i] = pattern_float(with_nans ? FLOATS_MIXED : pattern, i, 1, -100, 20);
            for (size_t i = 0; with_nans && i < n; i += 1 + random_below(4))
                x[i] = random_nan();
            check_on(f, x, n);
        }
}

/* All floats, cut into intervals of equal numbers, and one of each: a thousand in every binade. */
static void check_sweep(const activation *f)
{
    enum { PARTS = 128, N = 4096, INTERVAL = 0x100000000 / PARTS / N };
    for (uint32_t part = 0; part < PARTS; part++) {
        if (!begin_case(AT_END, 0, "one of each %d floats, part %u", (int)INTERVAL, (unsigned)part))
            continue;
        float *x = place(&x_buffer, N, sizeof *x);
        for (uint32_t i = 0; i < N; i++)
            x[i] = float_of_bits((part * N + i) * INTERVAL + (uint32_t)random_below(INTERVAL));
        check_on(f, x, N);
    }
}

/* Where exp's argument is first reduced, where the result becomes denormal and zero, and where x is cut off. */
static void check_edges(const activation *f)
{
    enum { N = 513 };
    static const float edges[] = {0x1p-126f, 0.3465736f, 0.8325546f, 13.153f, 14.36f, 15.0f,
                                  87.336f,   91.88f,     108.2f,     128.0f,  INFINITY};
    for (size_t e = 0; e < sizeof edges / sizeof *edges * 2; e++) {
        float next = edges[e / 2] * (e % 2 ? -1.0f : 1.0f);
        if (!begin_case(AT_END, 0, "data=floats around %g", (double)next))
            continue;
        for (size_t i = 0; i < N / 2; i++)
            next = nextafterf(next, next * INFINITY);
        float *x = place(&x_buffer, N, sizeof *x);
        for (size_t i = 0; i < N; i++, next = nextafterf(next, 0))
            x[i] = next;
        check_on(f, x, N);
    }
}

static timing bench(qk_activate_f32_type *kernel)
{
    enum { N = 4096 };
    static float x[N];
    stopwatch w = {0};
    for (size_t i = 0; i < N; i++)
        x[i] = random_float(20, 80); /* stay what they are: others would shrink to denormals with every call */
    while (keep_timing(&w))
        kernel(x, N);
    return timing_of(&w, N, ELEMENTS);
}

#define DEFINE_ACTIVATION(name, ulp)                                                               \
    void check_##name##_f32(const kernel_row *row)                                                 \
    {                                                                                              \
        const activation f = {row->kernel.name##_f32, ORACLE(row, name##_f32, NULL), plain_##name, \
                              ulp};                                                                \
        check_sizes(&f);                                                                           \
        check_sweep(&f);                                                                           \
        check_edges(&f);                                                                           \
    }                                                                                              \
    timing bench_##name##_f32(kernel_pointer kernel)                                               \
    {                                                                                              \
        return bench(kernel.name##_f32);                                                           \
    }

DEFINE_ACTIVATION(gelu, 3.7L)
DEFINE_ACTIVATION(silu, 3.4L)
