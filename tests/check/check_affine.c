/* quantize, dequantize and fake_quantize of float32, with one scale or one a column. */
#include "affine_parameters.h"
#include "plain_affine.h"

static buffer x_buffer = {.name = "x"}, q_buffer = {.name = "q"}, out_buffer = {.name = "out"},
              expected_buffer = {.name = "expected"};

/* ------------------------------------------------------------------------------------------- checks */

/* Two kernel types with the same inputs: one of the pointers is set. */
typedef struct quantizer {
    qk_quantize_f32_type *quantize;
    qk_fake_quantize_f32_type *fake_quantize;
} quantizer;

static int call(quantizer f, const float *x, size_t n, const float *scale, const int32_t *zero_point,
                qk_qtype type, void *out)
{
    return f.quantize ? f.quantize(x, n, scale, zero_point, type, out)
                      : f.fake_quantize(x, n, scale, zero_point, type, out);
}

static void check_quantizer_on(quantizer kernel, quantizer oracle, size_t n, size_t scales, qk_qtype type,
                               enum float_pattern pattern, int with_nan)
{
    const float *scale = place_scales(scales);
    const int32_t *zero_point = place_zero_points(scales, type);
    float *x = place(&x_buffer, n, sizeof *x);
    for (size_t i = 0; i < n; i++) {
        const size_t c = scales == 1 ? 0 : i;
        x[i] = pattern_float(pattern, i, scale[c], type.qmin - zero_point[c], type.qmax - zero_point[c]);
    }
    if (with_nan)
        x[random_place(n)] = random_nan();
    freeze(&x_buffer);

    void *out = place(&out_buffer, n, kernel.quantize ? 1 : sizeof(float));
    void *expected = place_expected(&expected_buffer, &out_buffer);
    call(oracle, x, n, scale, zero_point, type, expected);
    expect_equal("a NaN is reported", call(kernel, x, n, scale, zero_point, type, out) != 0, with_nan);
    if (with_nan)
        expect_intact(&out_buffer);
    else
        expect_same(&out_buffer, &expected_buffer, kernel.quantize ? U8 : F32);
}

static void check_quantizer(quantizer kernel, quantizer oracle, int cols)
{
    for (size_t s = 0; s < size_count; s++)
        for (size_t variant = 0; variant < AFFINE_TYPE_COUNT * (FLOAT_PATTERN_COUNT + 1) * SIDE_COUNT; variant++) {
            const size_t n = sizes[s], offset = (variant / SIDE_COUNT + variant / 12) % 4;
            const page_side side = variant % SIDE_COUNT;
            const affine_type *t = &affine_types[variant / SIDE_COUNT % AFFINE_TYPE_COUNT];
            const int pattern = (int)(variant / SIDE_COUNT / AFFINE_TYPE_COUNT);
            const int with_nan = pattern == FLOAT_PATTERN_COUNT;
            if (with_nan && n == 0)
                continue;
            if (begin_case(side, offset, "n=%zu type=%s data=%s offset=%zu", n, t->name,
                           with_nan ? "mixed, a NaN" : float_pattern_names[pattern], offset))
                check_quantizer_on(kernel, oracle, n, cols ? n : 1, t->type,
                                   with_nan ? FLOATS_MIXED : pattern, with_nan);
        }
}

static void check_dequantize(qk_dequantize_f32_type *kernel, qk_dequantize_f32_type *oracle, int cols)
{
    for (size_t s = 0; s < size_count; s++)
        for (size_t variant = 0; variant < BYTE_PATTERN_COUNT * BYTE_TYPE_COUNT * 4 * SIDE_COUNT; variant++) {
            const size_t n = sizes[s], offset = variant / SIDE_COUNT % 4;
            const page_side side = variant % SIDE_COUNT;
            const affine_type *t = &affine_types[variant / SIDE_COUNT / 4 % BYTE_TYPE_COUNT];
            const int pattern = (int)(variant / SIDE_COUNT / 4 / BYTE_TYPE_COUNT);
            if (!begin_case(side, offset, "n=%zu type=%s data=%s offset=%zu", n, t->name,
                            byte_pattern_names[pattern], offset))
                continue;
            const float *scale = place_scales(cols ? n : 1);
            const int32_t *zero_point = place_zero_points(cols ? n : 1, t->type);
            const uint8_t *q = fill_bytes(place(&q_buffer, n, 1), n, pattern);
            freeze(&q_buffer);
            float *out = place(&out_buffer, n, sizeof *out);
            float *expected = place_expected(&expected_buffer, &out_buffer);
            oracle(q, n, scale, zero_point, t->type.is_signed, expected);
            kernel(q, n, scale, zero_point, t->type.is_signed, out);
            expect_same(&out_buffer, &expected_buffer, F32);
        }
}

/* ------------------------------------------------------------------------------------------- timing */

enum { BENCH_N = 4096 };
static float bench_x[BENCH_N], bench_y[BENCH_N], bench_scale[BENCH_N];
static int32_t bench_zero_point[BENCH_N];
static uint8_t bench_q[BENCH_N];

static void fill_bench(void)
{
    for (size_t i = 0; i < BENCH_N; i++) {
        bench_x[i] = random_float(-1, 1);
        bench_scale[i] = 1.0f / 127;
        bench_zero_point[i] = random_int(-3, 3);
        bench_q[i] = (uint8_t)random_bits();
    }
}

static timing bench_quantizer(quantizer f)
{
    void *out = f.quantize ? (void *)bench_q : (void *)bench_y;
    stopwatch w = {0};
    fill_bench();
    while (keep_timing(&w))
        call(f, bench_x, BENCH_N, bench_scale, bench_zero_point, affine_types[0].type, out);
    return timing_of(&w, BENCH_N, ELEMENTS);
}

static timing bench_dequantizer(qk_dequantize_f32_type *kernel)
{
    stopwatch w = {0};
    fill_bench();
    while (keep_timing(&w))
        kernel(bench_q, BENCH_N, bench_scale, bench_zero_point, 1, bench_y);
    return timing_of(&w, BENCH_N, ELEMENTS);
}

/* -------------------------------------------------------------------------------------------- slots */

#define DEFINE_QUANTIZER(op, form, cols)                                                           \
    void check_##op##form##_f32(const kernel_row *row)                                             \
    {                                                                                              \
        quantizer kernel = {.op = row->kernel.op##form##_f32};                                     \
        quantizer oracle = {.op = ORACLE(row, op##form##_f32, plain_##op##form)};                  \
        check_quantizer(kernel, oracle, cols);                                                     \
    }                                                                                              \
    timing bench_##op##form##_f32(kernel_pointer kernel)                                           \
    {                                                                                              \
        return bench_quantizer((quantizer){.op = kernel.op##form##_f32});                          \
    }

#define DEFINE_DEQUANTIZER(form, cols)                                                             \
    void check_dequantize##form##_f32(const kernel_row *row)                                       \
    {                                                                                              \
        check_dequantize(row->kernel.dequantize##form##_f32,                                       \
                         ORACLE(row, dequantize##form##_f32, plain_dequantize##form), cols);       \
    }                                                                                              \
    timing bench_dequantize##form##_f32(kernel_pointer kernel)                                     \
    {                                                                                              \
        return bench_dequantizer(kernel.dequantize##form##_f32);                                   \
    }

DEFINE_QUANTIZER(quantize, , 0)
DEFINE_QUANTIZER(quantize, _cols, 1)
DEFINE_QUANTIZER(fake_quantize, , 0)
DEFINE_QUANTIZER(fake_quantize, _cols, 1)
DEFINE_DEQUANTIZER(, 0)
DEFINE_DEQUANTIZER(_cols, 1)
