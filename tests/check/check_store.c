/* store_s32, store_f32, store_q8, store_q8_fixed: from a tile of sums to rows of the output. */
#include "harness.h"
#include "plain_store.h"
#include "store_args.h"

static buffer tile_buffer = {.name = "tile"}, out_buffer = {.name = "out"}, expected_buffer = {.name = "expected"};

static void check_shape(const store_output *output, qk_store_type *kernel, qk_store_type *oracle,
                        size_t m, size_t n)
{
    for (size_t variant = 0; variant < FORM_COUNT * SUM_PATTERN_COUNT * SIDE_COUNT; variant++) {
        const page_side side = variant % SIDE_COUNT;
        const int form = variant / SIDE_COUNT % FORM_COUNT;
        const enum sum_pattern pattern = variant / SIDE_COUNT / FORM_COUNT;
        const size_t offset = (m + variant / SIDE_COUNT) % 4;
        const size_t column = (m + (size_t)form) % 3 * QK_STORE_COLUMNS;
        const size_t ld = n + (form % 3 ? 0 : QK_STORE_COLUMNS), out_row = n + (size_t)form % 5;
        if (!begin_case(side, offset,
                        "m=%zu n=%zu column=%zu ld=%zu output rows %zu apart, with%s%s%s%s data=%s offset=%zu",
                        m, n, column, ld, out_row, form & ROW_SUMS ? " row_sums" : "",
                        form & A_ZERO_POINT ? " a_zero_point" : "", form & ROW_SCALES ? " row_scales" : "",
                        form & BIAS ? " bias" : "", sum_pattern_names[pattern], offset))
            continue;

        int32_t *tile = place_aligned(&tile_buffer, ((m - 1) * ld + n) * sizeof *tile, 64);
        for (size_t i = 0; i < (m - 1) * ld + n; i++)
            tile[i] = random_sum(pattern);
        freeze(&tile_buffer);
        const int32_t largest_term = pattern == SUMS_SMALL ? 1 : random_below(2) ? 100000 : 0;
        const qk_store_args args = random_store_args(output, column + n, form, largest_term);
        const qk_store_rows rows = random_store_rows(output, m, form);
        void *out = place(&out_buffer, (m - 1) * out_row + n, output->bytes);
        void *expected = place_expected(&expected_buffer, &out_buffer);
        oracle(tile, ld, m, n, &args, column, &rows, expected, out_row * output->bytes);
        kernel(tile, ld, m, n, &args, column, &rows, out, out_row * output->bytes);
        expect_same(&out_buffer, &expected_buffer, output->type);
    }
}

static void check_store(const store_output *output, qk_store_type *kernel, qk_store_type *oracle)
{
    static const size_t row_counts[] = {1, 2, 3, 5, QK_MAX_MR}, blocks[] = {1, 2, 3, 4, 5, 8};
    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++)
        for (size_t j = 0; j < sizeof blocks / sizeof *blocks; j++)
            check_shape(output, kernel, oracle, row_counts[i], blocks[j] * QK_STORE_COLUMNS);
}

/* A tile of 8 x 64 with all that a per-channel, per-token product uses. */
static timing bench_store(const store_output *output, qk_store_type *kernel)
{
    enum { M = 8, N = 64, FORM = ROW_SUMS | ROW_SCALES | BIAS };
    int32_t *tile = place(&tile_buffer, M * N, sizeof *tile);
    for (size_t i = 0; i < M * N; i++)
        tile[i] = random_int(-100000, 100000);
    qk_store_args args = random_store_args(output, N, FORM, 1000);
    if (output->is_float)
        set_ordinary_mult(&args, N);
    const qk_store_rows rows = random_store_rows(output, M, FORM);
    void *out = place(&out_buffer, M * N, output->bytes);
    stopwatch w = {0};
    while (keep_timing(&w))
        kernel(tile, N, M, N, &args, 0, &rows, out, N * output->bytes);
    return timing_of(&w, M * N, ELEMENTS);
}

#define DEFINE_CHECK(slot, output)                                                                 \
    void check_##slot(const kernel_row *row)                                                       \
    {                                                                                              \
        check_store(&store_outputs[output], row->kernel.slot, ORACLE(row, slot, plain_##slot));    \
    }                                                                                              \
    timing bench_##slot(kernel_pointer kernel)                                                     \
    {                                                                                              \
        return bench_store(&store_outputs[output], kernel.slot);                                   \
    }

DEFINE_CHECK(store_s32, QK_OUT_S32)
DEFINE_CHECK(store_f32, QK_OUT_F32)
DEFINE_CHECK(store_q8, QK_OUT_Q8)
DEFINE_CHECK(store_q8_fixed, QK_OUT_Q8_FIXED)
