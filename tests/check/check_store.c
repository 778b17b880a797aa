/* store_s32, store_f32, store_q8, store_q8_fixed: from a tile of sums to rows of the output. */
#include "harness.h"
#include "plain_store.h"

static buffer tile_buffer = {.name = "tile"}, out_buffer = {.name = "out"},
              expected_buffer = {.name = "expected"}, column_term = {.name = "column_term"},
              b_zero_point = {.name = "b_zero_point"}, column_sums = {.name = "column_sums"},
              mult = {.name = "mult"}, bias = {.name = "bias"}, fixed_mult = {.name = "fixed_mult"},
              fixed_left = {.name = "fixed_left"}, fixed_right = {.name = "fixed_right"},
              row_sums = {.name = "row_sums"}, a_zero_point = {.name = "a_zero_point"},
              row_scales = {.name = "row_scales"};

typedef struct store {
    qk_store_type *kernel;
    size_t out_bytes;
    element_type out_type;
    int is_float, is_fixed; /* which group of qk_store_args it reads; the other pointers stay NULL */
} store;

/* The optional arguments that are given. */
enum { ROW_SUMS = 1, A_ZERO_POINT = 2, ROW_SCALES = 4, BIAS = 8, FORM_COUNT = 16 };

/* --------------------------------------------------------------------------------------------- data */

enum int_pattern { INTS_ZERO, INTS_LOWEST, INTS_HIGHEST, INTS_SMALL, INTS_LARGE, INTS_ANY, INT_PATTERNS };
static const char *const int_pattern_names[] = {"zero", "lowest", "highest", "small", "large", "any"};

static int32_t pattern_int(enum int_pattern pattern)
{
    switch (pattern) {
    case INTS_ZERO: return 0;
    case INTS_LOWEST: return INT32_MIN;
    case INTS_HIGHEST: return INT32_MAX;
    case INTS_SMALL: return random_int(-1200, 1200);
    case INTS_LARGE: return random_int(-(1 << 26), 1 << 26); /* float32 has to round */
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

static qk_store_args random_args(const store *s, size_t columns, int form, int32_t largest_term)
{
    qk_store_args args = {.column_term = place_ints(&column_term, columns, -largest_term, largest_term)};
    if (form & ROW_SUMS)
        args.b_zero_point = place_ints(&b_zero_point, columns, -255, 255);
    if (form & A_ZERO_POINT)
        args.column_sums = place_ints(&column_sums, columns, INT32_MIN, INT32_MAX);
    if (s->is_float)
        args.mult = place_floats(&mult, columns, random_mult);
    if (s->is_float && form & BIAS)
        args.bias = place_floats(&bias, columns, random_bias);
    if (s->is_fixed)
        place_fixed(&args, columns);

    const int is_signed = (int)random_below(2), relu = random_below(3) == 0;
    const int32_t qmin = is_signed ? -128 : 0, qmax = is_signed ? 127 : 255;
    args.zero_point = random_int(qmin, qmax);
    args.fixed_low = relu ? 0 : qmin - args.zero_point;
    args.fixed_high = qmax - args.zero_point;
    args.low = s->out_type == U8 ? (float)args.fixed_low : relu ? 0.0f : -INFINITY;
    args.high = s->out_type == U8 ? (float)args.fixed_high : random_below(2) ? 6.0f : INFINITY;
    return args;
}

static qk_store_rows random_rows(const store *s, size_t m, int form)
{
    qk_store_rows rows = {0};
    if (form & ROW_SUMS)
        rows.row_sums = place_ints(&row_sums, m, INT32_MIN, INT32_MAX);
    if (form & A_ZERO_POINT)
        rows.a_zero_point = place_ints(&a_zero_point, m, -255, 255);
    if (s->is_float && form & ROW_SCALES)
        rows.row_scales = place_floats(&row_scales, m, ordinary_factor);
    return rows;
}

/* ------------------------------------------------------------------------------------------- checks */

static void check_shape(const store *s, qk_store_type *oracle, size_t m, size_t n)
{
    for (size_t variant = 0; variant < FORM_COUNT * INT_PATTERNS * SIDE_COUNT; variant++) {
        const page_side side = variant % SIDE_COUNT;
        const int form = variant / SIDE_COUNT % FORM_COUNT;
        const enum int_pattern pattern = variant / SIDE_COUNT / FORM_COUNT;
        const size_t offset = (m + variant / SIDE_COUNT) % 4;
        const size_t column = (m + (size_t)form) % 3 * QK_STORE_COLUMNS;
        const size_t ld = n + (form % 3 ? 0 : QK_STORE_COLUMNS), out_row = n + (size_t)form % 5;
        if (!begin_case(side, offset,
                        "m=%zu n=%zu column=%zu ld=%zu output rows %zu apart, with%s%s%s%s data=%s offset=%zu",
                        m, n, column, ld, out_row, form & ROW_SUMS ? " row_sums" : "",
                        form & A_ZERO_POINT ? " a_zero_point" : "", form & ROW_SCALES ? " row_scales" : "",
                        form & BIAS ? " bias" : "", int_pattern_names[pattern], offset))
            continue;

        int32_t *tile = place_aligned(&tile_buffer, ((m - 1) * ld + n) * sizeof *tile, 64);
        for (size_t i = 0; i < (m - 1) * ld + n; i++)
            tile[i] = pattern_int(pattern);
        freeze(&tile_buffer);
        const int32_t largest_term = pattern == INTS_SMALL ? 1 : random_below(2) ? 100000 : 0;
        const qk_store_args args = random_args(s, column + n, form, largest_term);
        const qk_store_rows rows = random_rows(s, m, form);
        void *out = place(&out_buffer, (m - 1) * out_row + n, s->out_bytes);
        void *expected = place_expected(&expected_buffer, &out_buffer);
        oracle(tile, ld, m, n, &args, column, &rows, expected, out_row * s->out_bytes);
        s->kernel(tile, ld, m, n, &args, column, &rows, out, out_row * s->out_bytes);
        expect_same(&out_buffer, &expected_buffer, s->out_type);
    }
}

static void check_store(store s, qk_store_type *oracle)
{
    static const size_t row_counts[] = {1, 2, 3, 5, QK_MAX_MR}, blocks[] = {1, 2, 3, 4, 5, 8};
    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++)
        for (size_t j = 0; j < sizeof blocks / sizeof *blocks; j++)
            check_shape(&s, oracle, row_counts[i], blocks[j] * QK_STORE_COLUMNS);
}

/* A tile of 8 x 64 with all that a per-channel, per-token product uses. */
static timing bench_store(store s)
{
    enum { M = 8, N = 64, FORM = ROW_SUMS | ROW_SCALES | BIAS };
    const int32_t *tile = place_ints(&tile_buffer, M * N, -100000, 100000);
    qk_store_args args = random_args(&s, N, FORM, 1000);
    if (s.is_float) /* no denormals, which take a slow path */
        args.mult = place_floats(&mult, N, ordinary_factor);
    const qk_store_rows rows = random_rows(&s, M, FORM);
    void *out = place(&out_buffer, M * N, s.out_bytes);
    stopwatch w = {0};
    while (keep_timing(&w))
        s.kernel(tile, N, M, N, &args, 0, &rows, out, N * s.out_bytes);
    return timing_of(&w, M * N, ELEMENTS);
}

#define DEFINE_CHECK(slot, out_bytes, out_type, is_float, is_fixed)                                \
    void check_##slot(const kernel_row *row)                                                       \
    {                                                                                              \
        check_store((store){row->kernel.slot, out_bytes, out_type, is_float, is_fixed},            \
                    ORACLE(row, slot, plain_##slot));                                              \
    }                                                                                              \
    timing bench_##slot(kernel_pointer kernel)                                                     \
    {                                                                                              \
        return bench_store((store){kernel.slot, out_bytes, out_type, is_float, is_fixed});         \
    }

DEFINE_CHECK(store_s32, 4, S32, 0, 0)
DEFINE_CHECK(store_f32, 4, F32, 1, 0)
DEFINE_CHECK(store_q8, 1, U8, 1, 0)
DEFINE_CHECK(store_q8_fixed, 1, U8, 0, 1)
