/* A linear layer with a packed weight: x W' + bias.
 *
 *      for each block of rows of x that fits the L2 cache     as int8 rows: quantized, or as digits (linear_rows.c)
 *                                                             after its rotation, or its scales (linear_inputs.c)
 *        for each part of the columns                         one a thread
 *          few rows, for ABREAST panels of the weight:        tiles that decode in registers
 *          many rows, for each panel:
 *            for each chunk of blocks that fits the L1 cache  decode it, and multiply it by all rows, tile by tile
 *          from the sums to the output                        by float64 where float32 has overflowed (linear_wide.c)
 *
 * The order of the float operations does not depend on any of this: blocks of a panel come one after the other, and
 * each column is by itself.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "caches.h"
#include "calls.h"
#include "ops/hadamard.h"
#include "ops/linear_inputs.h"
#include "ops/linear_rows.h"
#include "ops/linear_wide.h"
#include "ops/sizes.h"
#include "requant.h"
#include "threads.h"

enum {
    SMALL_PART = 1 << 20,      /* multiply-adds, or values of x, that are not worth another thread */
    SMALL_TRANSFORM = 1 << 16, /* values of x that are rotated, or multiplied, first */
    ABREAST = 4,               /* panels that few rows read at a time */
    FEW_TILES = 8,             /* tiles of rows for which decoding a panel apart does not pay */
};

/* Everything about one call that does not change from part to part, and the rows at work. */
typedef struct linear {
    const qk_linear_args *args;
    const qk_packed_weight *w;
    const uint8_t *packed;
    qk_gemm_grouped_type *gemm;
    qk_activate_f32_type *activate; /* or NULL */
    float *bias;                    /* [panels * nr] */
    qk_transform transform;
    float *transformed;  /* [rows of the block][k], or NULL where the weight takes x as it is */
    int32_t *exponents;  /* of these rows, or NULL */
    qk_int8_rows rows;   /* of the block */
    size_t first_row, m; /* of the block, in x */
    size_t chunk;        /* blocks of k that are decoded at a time */
    int few_tiles;       /* nothing is decoded apart */
    size_t parts, row_parts;
    uint8_t *scratch; /* of all parts */
    size_t part_bytes, plain_bytes;
    atomic_int not_finite;
} linear;

/* The power of two that row `row` of the block was divided by. */
static int exponent_of(const linear *l, size_t row) { return l->exponents ? l->exponents[row] : 0; }

/* ------------------------------------------------------------------------------------------------- panels */

static qk_grouped_tile tile_of(const linear *l, size_t row, size_t m, size_t block, size_t blocks)
{
    const size_t at = row * l->rows.blocks + block;
    return (qk_grouped_tile){
        .a = l->rows.a + row * l->rows.a_stride + block * l->w->records.block,
        .a_stride = l->rows.a_stride,
        .terms = l->rows.terms + at,
        .a_scales = l->rows.scales ? l->rows.scales + at : NULL,
        .row_blocks = l->rows.blocks,
        .m = (uint32_t)m,
        .blocks = (uint32_t)blocks,
        .records = &l->w->records,
        .panels = 1,
        .panel_bytes = l->w->panel_bytes,
        .accumulate = block > 0,
    };
}

/* Ask for the i-th of `parts` parts of the records that follow, while the present ones are multiplied. */
static void prefetch_part(const uint8_t *records, size_t bytes, size_t i, size_t parts)
{
    const range lines = part_of(ceil_div(bytes, CACHE_LINE), i, parts);
    for (size_t line = lines.first; line < lines.end; line++)
        __builtin_prefetch((const void *)((uintptr_t)records + line * CACHE_LINE), 0, 2);
}

/* The sums of int8 rows in one panel. */
static void multiply_panel(const linear *l, size_t panel, range rows, float *sums, uint8_t *plain)
{
    const qk_gemm_grouped_type *gemm = l->gemm;
    const uint8_t *records = l->packed + qk_weight_panel(l->w, panel), *levels = l->packed + qk_weight_levels(l->w, panel);
    const size_t m = rows.end - rows.first, tiles = ceil_div(m, gemm->mr[l->w->codes]);
    size_t block = 0, blocks;
    do {
        blocks = least(l->chunk, l->w->blocks - block);
        gemm->decode[l->w->codes](records + block * l->w->records.bytes, &l->w->records, levels, blocks, plain);
        for (size_t i = 0; i < tiles; i++) {
            const range part = part_of(m, i, tiles);
            prefetch_part(records + (block + blocks) * l->w->records.bytes, blocks * l->w->records.bytes, i, tiles);
            qk_grouped_tile tile = tile_of(l, rows.first + part.first, part.end - part.first, block, blocks);
            tile.b = plain;
            tile.sums = sums + part.first * gemm->nr;
            gemm->run[l->w->codes](&tile);
        }
        block += blocks;
    } while (block < l->w->blocks);
}

/* The output of a row in one panel's columns by float64, but for what float32 can hold on the way. */
static void finish_wide(const linear *l, size_t panel, size_t row, const float *sums, uint8_t *plain, float *out)
{
    const qk_linear_args *args = l->args;
    const size_t nr = l->gemm->nr, col = panel * nr, n = least(nr, l->w->n - col);
    const float scale = l->rows.row_scales[row], *bias = l->bias + col;
    const int exponent = exponent_of(l, row);
    const double wide_scale = ldexp(scale, exponent);
    double wide[QK_WIDEST_PANEL];
    qk_wide_sums(l->w, l->packed, &l->rows, row, panel, plain, wide);
    qk_kernels.finish_f32(sums, nr, l->rows.digits, n, scale, bias, -INFINITY, INFINITY, out);
    for (size_t j = 0; j < n; j++) {
        const float y = exponent == 0 && isfinite(out[j]) ? out[j] : (float)(wide[j] * wide_scale + bias[j]);
        out[j] = qk_clamp_f32(y, args->low, args->high);
    }
}

/* From the sums of rows of x to their output in one panel's columns; plain: as for qk_wide_sums. */
static void finish_panel(const linear *l, size_t panel, range rows, const float *sums, uint8_t *plain)
{
    const qk_linear_args *args = l->args;
    const size_t nr = l->gemm->nr, col = panel * nr, n = least(nr, l->w->n - col);
    for (size_t row = rows.first; row < rows.end; row++, sums += l->rows.digits * nr) {
        float *out = args->out + (l->first_row + row) * l->w->n + col;
        const int overflow = qk_kernels.finish_f32(sums, nr, l->rows.digits, n, l->rows.row_scales[row], l->bias + col,
                                                   args->low, args->high, out);
        if (overflow || exponent_of(l, row) != 0)
            finish_wide(l, panel, row, sums, plain, out);
        if (l->activate)
            l->activate(out, n);
    }
}

/* Rows of x by a few panels, a tile at a time. */
static void multiply_few(const linear *l, range panels, range rows, float *sums, uint8_t *plain)
{
    const size_t digits = l->rows.digits, most = l->gemm->few[l->w->codes] / digits;
    const size_t tiles = ceil_div(rows.end - rows.first, most);
    for (size_t i = 0; i < tiles; i++) {
        range part = part_of(rows.end - rows.first, i, tiles);
        part = (range){rows.first + part.first, rows.first + part.end};
        const size_t m = (part.end - part.first) * digits;
        qk_grouped_tile tile = tile_of(l, part.first * digits, m, 0, l->w->blocks);
        tile.b = l->packed + qk_weight_panel(l->w, panels.first);
        tile.levels = l->packed + qk_weight_levels(l->w, panels.first);
        tile.panels = (uint32_t)(panels.end - panels.first);
        tile.sums = sums;
        l->gemm->run_packed[l->w->codes](&tile);
        for (size_t panel = panels.first; panel < panels.end; panel++)
            finish_panel(l, panel, part, sums + (panel - panels.first) * m * l->gemm->nr, plain);
    }
}

/* A task: some rows of the block by some panels. */
static void multiply_part(void *context, size_t part)
{
    const linear *l = context;
    uint8_t *plain = l->scratch + part * l->part_bytes;
    float *sums = (float *)(plain + l->plain_bytes);
    const range rows = part_of(l->m, part % l->row_parts, l->row_parts);
    const range panels = part_of(qk_weight_panels(l->w), part / l->row_parts, l->parts / l->row_parts);
    if (rows.first == rows.end)
        return;
    const size_t abreast = l->few_tiles ? ABREAST : 1, panel_work = (rows.end - rows.first) * l->gemm->nr * l->w->k;
    size_t work = 0;
    for (size_t panel = panels.first; panel < panels.end; panel += abreast) {
        if (l->few_tiles) {
            multiply_few(l, (range){panel, least(panel + ABREAST, panels.end)}, rows, sums, plain);
        } else {
            multiply_panel(l, panel, (range){rows.first * l->rows.digits, rows.end * l->rows.digits}, sums, plain);
            finish_panel(l, panel, rows, sums, plain);
        }
        if (qk_interrupted_after(&work, abreast * panel_work))
            return;
    }
}

/* A task: one row of x. */
static void set_row(void *context, size_t row)
{
    linear *l = context;
    const float *x = l->args->x + (l->first_row + row) * l->w->k;
    qk_status status = QK_OK;
    if (l->transformed) {
        float *transformed = l->transformed + row * l->w->k;
        status = qk_transform_row(&l->transform, x, transformed, l->exponents + row);
        x = transformed;
    }
    if (status == QK_OK)
        status = qk_set_int8_row(&l->rows, l->w, l->args->rows, row, x);
    if (status != QK_OK)
        atomic_store_explicit(&l->not_finite, 1, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------------------- layers */

/* Memory for rows that do not enter the product as they are, none for others. Sizes do not overflow: x has them, too. */
static qk_status prepare_transform(linear *l, size_t block_rows)
{
    const size_t k = l->w->k, row_bytes = k * sizeof(float) + sizeof(int32_t);
    l->transform = (qk_transform){.k = k, .scales = l->args->input_scales};
    if (!l->args->input_scales && !l->args->seed)
        return QK_OK;
    l->transformed = malloc(block_rows * row_bytes + k * sizeof(float)); /* rows, exponents, factors */
    if (!l->transformed)
        return QK_NO_MEMORY;
    l->exponents = (int32_t *)(l->transformed + block_rows * k);
    if (l->args->seed && k > 0) {
        float *factors = (float *)(l->exponents + block_rows);
        qk_set_hadamard_factors(factors, k, l->args->seed);
        l->transform.factors = factors;
    }
    return QK_OK;
}

/* Parts of a block of rows: of the columns, and where these are too few for all threads, of the rows, too. */
static void cut_into_parts(linear *l, size_t m)
{
    const size_t panels = qk_weight_panels(l->w);
    const double work = (double)m * (double)l->w->n * (double)l->w->k / SMALL_PART;
    const size_t threads = (size_t)qk_get_num_threads();
    const size_t parts = work < 1 ? 1 : work < (double)threads ? (size_t)work : threads;
    const size_t column_parts = least(parts, panels);
    l->row_parts = least(parts / column_parts, m);
    l->parts = column_parts * l->row_parts;
}

static int is_own_layout(const qk_packed_weight *w)
{
    const qk_weight_layout own = qk_own_weight_layout();
    return w->nr == own.nr && w->kr == own.kr && w->bytes_signed == own.bytes_signed &&
           (w->lanes == own.lanes || !w->records.row_tables);
}

qk_status qk_linear(const qk_linear_args *args)
{
    QK_CALL;
    linear l = {.args = args, .w = &args->header, .packed = args->weight, .gemm = qk_kernels.gemm_grouped};
    const size_t digits = args->rows == QK_ROWS_FLOAT32 ? 3 : 1, nr = l.gemm->nr;
    if (!is_own_layout(l.w))
        return QK_FOREIGN_LAYOUT;
    for (size_t j = 0; args->bias && j < l.w->n; j++)
        if (!isfinite(args->bias[j]))
            return QK_BAD_BIAS;
    if (args->m == 0 || l.w->n == 0)
        return QK_OK;
    if (args->activation == QK_GELU)
        l.activate = qk_kernels.gelu_f32;
    else if (args->activation == QK_SILU)
        l.activate = qk_kernels.silu_f32;

    /* A block of rows takes half the L2 cache; tiles cut it into whole rows of x. */
    const size_t unit = l.gemm->mr[l.w->codes] * digits, row_bytes = qk_int8_rows_size(l.w, args->rows, unit) / unit;
    const size_t fitting = (qk_caches.l2 / 2 / row_bytes / unit + 1) * unit;
    const size_t block_rows = ceil_div(args->m, ceil_div(args->m, fitting));
    l.chunk = qk_caches.l1d * 2 / 3 / qk_plain_bytes(&l.w->records, nr);
    l.chunk = l.chunk < 1 ? 1 : least(l.chunk, l.w->blocks);
    cut_into_parts(&l, block_rows);

    const size_t rows_bytes = qk_int8_rows_size(l.w, args->rows, block_rows);
    const size_t bias_bytes = round_up(qk_weight_panels(l.w) * nr * sizeof(float));
    l.plain_bytes = round_up(l.chunk * qk_plain_bytes(&l.w->records, nr));
    const size_t few = l.w->records.row_tables ? 0 : l.gemm->few[l.w->codes] / digits * digits;
    const size_t part_rows = ceil_div(block_rows, l.row_parts) * digits;
    l.few_tiles = part_rows <= FEW_TILES * few;
    l.part_bytes = l.plain_bytes + round_up((l.few_tiles ? ABREAST * few : part_rows) * nr * sizeof(float));
    uint8_t *memory = aligned_alloc(CACHE_LINE, rows_bytes + bias_bytes + l.parts * l.part_bytes + CACHE_LINE);
    if (!memory || prepare_transform(&l, block_rows) != QK_OK) {
        free(memory);
        return QK_NO_MEMORY;
    }
    l.rows = qk_int8_rows_in(memory, l.w, args->rows, block_rows);
    l.bias = (float *)(memory + rows_bytes);
    l.scratch = memory + rows_bytes + bias_bytes;
    for (size_t j = 0; j < l.w->n; j++)
        l.bias[j] = args->bias ? args->bias[j] : -0.0f;

    qk_status status = QK_OK;
    for (; l.first_row < args->m && status == QK_OK; l.first_row += l.m) {
        l.m = least(block_rows, args->m - l.first_row);
        if (l.m * l.w->k < (l.transformed ? SMALL_TRANSFORM : SMALL_PART))
            for (size_t row = 0; row < l.m; row++)
                set_row(&l, row);
        else
            status = qk_parallel_for(set_row, &l, l.m);
        if (status == QK_OK && l.not_finite)
            status = QK_NOT_FINITE;
        if (status == QK_OK)
            status = qk_parallel_for(multiply_part, &l, l.parts);
    }
    free(l.transformed);
    free(memory);
    return status;
}
