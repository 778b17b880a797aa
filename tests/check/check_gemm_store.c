/* run_store of gemm_s8: the same bytes as run() followed by the scalar store kernel. */
#include "gemm_operand.h"
#include "store_args.h"

#include <string.h>

static operand a, b;
static buffer sums_buffer = {.name = "sums"}, tile_buffer = {.name = "tile of run"}, out_buffer = {.name = "out"},
              expected_buffer = {.name = "expected"};

static qk_store_type *const scalar_stores[QK_OUT_COUNT] = {
    [QK_OUT_S32] = qk_store_s32_scalar,
    [QK_OUT_F32] = qk_store_f32_scalar,
    [QK_OUT_Q8] = qk_store_q8_scalar,
    [QK_OUT_Q8_FIXED] = qk_store_q8_fixed_scalar,
};

/* Sums to start from, which run_store may only read. Without any, it may not even do that: NULL. */
static int32_t *place_sums(const qk_gemm_tile *tile, enum sum_pattern pattern)
{
    if (!tile->accumulate)
        return NULL;
    const size_t count = (tile->m - 1) * b.lanes + tile->n;
    int32_t *sums = place_aligned(&sums_buffer, count * sizeof *sums, 64);
    for (size_t i = 0; i < count; i++)
        sums[i] = random_sum(pattern);
    freeze(&sums_buffer);
    return sums;
}

/* The sums that run() leaves. */
static const int32_t *run_tile(qk_gemm_s8_type *g, qk_gemm_tile tile)
{
    const size_t bytes = ((tile.m - 1) * b.lanes + tile.n) * sizeof(int32_t);
    int32_t *sums = place_aligned(&tile_buffer, bytes, 64);
    if (tile.accumulate)
        memcpy(sums, tile.sums, bytes);
    tile.sums = sums;
    g->run(&tile);
    return sums;
}

static void check_tile(qk_gemm_s8_type *g, qk_output to, const qk_gemm_tile *tile, const qk_store_args *args,
                       size_t column, const qk_store_rows *rows, size_t out_row)
{
    const store_output *output = &store_outputs[to];
    const size_t row_bytes = out_row * output->bytes;
    const int32_t *sums = run_tile(g, *tile);
    void *out = place(&out_buffer, (tile->m - 1) * out_row + tile->n, output->bytes);
    void *expected = place_expected(&expected_buffer, &out_buffer);
    scalar_stores[to](sums, g->nr, tile->m, tile->n, args, column, rows, expected, row_bytes);
    g->run_store[to](tile, args, column, rows, out, row_bytes);
    expect_same(&out_buffer, &expected_buffer, output->type);
}

static void check_shape(qk_gemm_s8_type *g, qk_output to, size_t m, size_t n)
{
    /* A kernel may treat as many first steps as the tile has lines of output on their own. */
    static const size_t step_counts[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 17, 23, 24, 25, 33};
    static const int forms[] = {0, ROW_SCALES, BIAS, ROW_SCALES | BIAS};
    const store_output *output = &store_outputs[to];
    const size_t variants = 4 * 2 * SIDE_COUNT;

    for (size_t s = 0; s < sizeof step_counts / sizeof *step_counts; s++)
        for (size_t variant = 0; variant < variants; variant++) {
            const page_side side = variant % SIDE_COUNT;
            const int accumulate = variant / 2 % 2, form = forms[variant / 4];
            const enum sum_pattern pattern = (s + m + variant) % SUM_PATTERN_COUNT;
            const size_t offset = (s + variant / 2) % 4, gap = 4 * ((s + variant) % 7);
            const size_t column = (s + m + variant) % 3 * g->n_unit, out_row = n + (s + m) % 5;
            const size_t before = (m + variant / 2) % 3, after = (m + variant) % 2;
            const size_t steps = before + step_counts[s] + after, short_by = steps ? s % g->kr : 0;
            const size_t k = steps * g->kr - short_by;
            if (!begin_case(side, offset,
                            "run_store[%s] m=%zu n=%zu k=%zu steps [%zu, %zu) of %zu accumulate=%d%s%s data=%s "
                            "column=%zu output rows %zu apart gap=%zu offset=%zu",
                            output->name, m, n, k, before, before + step_counts[s], steps, accumulate,
                            form & ROW_SCALES ? " row_scales" : "", form & BIAS ? " bias" : "",
                            sum_pattern_names[pattern], column, out_row, gap, offset))
                continue;
            fill_source(&a, m, k, random_below(2) ? BYTES_RANDOM : random_below(BYTE_PATTERN_COUNT));
            fill_source(&b, n, k, BYTES_RANDOM);
            pack_source(&a, m, k, 0, gap);
            pack_source(&b, n, k, 0, 0);
            qk_gemm_tile tile = tile_of(&a, &b, m, n);
            tile.first_step = (uint32_t)before;
            tile.k_steps = (uint32_t)step_counts[s];
            tile.accumulate = accumulate;
            tile.sums = place_sums(&tile, pattern);
            const int32_t largest_terms[] = {0, 1, 100000, INT32_MAX};
            const qk_store_args args = random_store_args(output, column + n, form, largest_terms[random_below(4)]);
            const qk_store_rows rows = random_store_rows(output, m, form);
            check_tile(g, to, &tile, &args, column, &rows, out_row);
        }
}

void check_gemm_run_store(qk_gemm_s8_type *g)
{
    set_operand_a(&a, g);
    set_operand_b(&b, g);
    for (qk_output to = 0; to < QK_OUT_COUNT; to++)
        for (size_t n = g->n_unit; g->run_store[to] && n <= g->nr; n += g->n_unit)
            for (size_t m = 1; m <= g->mr; m++)
                check_shape(g, to, m, n);
}

stopwatch time_gemm_run_store(qk_gemm_s8_type *g, const qk_gemm_tile *tile)
{
    const store_output *output = &store_outputs[QK_OUT_F32];
    qk_store_args args = random_store_args(output, tile->n, ROW_SCALES | BIAS, 1000);
    set_ordinary_mult(&args, tile->n);
    const qk_store_rows rows = random_store_rows(output, tile->m, ROW_SCALES | BIAS);
    void *out = place(&out_buffer, (size_t)tile->m * tile->n, output->bytes);
    stopwatch w = {0};
    while (keep_timing(&w))
        g->run_store[QK_OUT_F32](tile, &args, 0, &rows, out, tile->n * output->bytes);
    return w;
}
