/* The integer matrix product: blocking, packing and threads around the kernels' register tiles.
 *
 *      for each part of the output                               one a thread: a range of rows by a range of columns
 *        for each block of rows of A that fits the L2 cache      pack it: panels of at most mr rows
 *          for each panel of B (nr columns)                      packed before, or now
 *            for each chunk of k that fits the L2 cache, too
 *              for each panel of A in the block                  run: mr x nr sums; with the last chunk, store
 *
 * A B that comes as plain bytes serves this product alone. Where one block of rows takes each of its panels, a panel is
 * packed when its turn comes, is multiplied out of the L2 cache, and makes room for the next: packed B costs no memory
 * and no traffic. More blocks, or parts above each other, would each pack it again (256 x 4096 x 4096 in two blocks
 * took 1.2 times as long, avx512vnni): there all of B is packed first.
 *
 * While a chunk of B is multiplied, the kernels prefetch the one that follows it in memory, a slice with every tile.
 *
 * Exactness: kernels multiply whatever signedness they like best, the packers flip bytes to it, and with the zero
 * points moved likewise
 *      sum (a - za)(b - zb) = sum ab - zb * sum a - za * sum (b - zb)
 * holds modulo 2**32 and so gives the exact sum whenever that fits int32. Where it may not and the result is scaled, k
 * is split into chunks whose sums fit, added up in 64 bits.
 */
#include "ops/gemm.h"

#include <stdlib.h>
#include <string.h>

#include "caches.h"
#include "calls.h"
#include "ops/sizes.h"
#include "requant.h"
#include "threads.h"

enum {
    AHEAD_BYTES = 4096,      /* how far before its use B is fetched when it is read once */
    WIDE_CHUNK = 32768,      /* k values whose raw sums fit int32: 255 * 255 * k < 2**31 */
    SMALL_PART = 1 << 20,    /* multiply-adds that are not worth another thread */
    ROWS_OF_PACKING = 32,    /* a product of so many rows takes about as long as packing its B */
    STACK_SCRATCH = 16 * 1024,
};

/* --------------------------------------------------------------------------------------------------- tiles */

/* A panel of packed A: rows [row, row + m) of the product. */
typedef struct panel {
    const uint8_t *data;
    size_t row, m;
    const int32_t *row_sums; /* of the panel's rows, or NULL when no column has a zero point */
} panel;

static qk_store_rows rows_of(const qk_product *p, const panel *a)
{
    return (qk_store_rows){
        .row_sums = a->row_sums,
        .a_zero_point = p->a_zero_point ? p->a_zero_point + a->row : NULL,
        .row_scales = p->args->row_scales ? p->args->row_scales + a->row : NULL,
    };
}

/* Multiply the last chunk and store: from the registers, or by way of the tile's sums where the kernel cannot, and for
 * columns past the edge by way of a full tile. */
static void finish_tile(const qk_product *p, const qk_gemm_tile *tile, const panel *a, size_t col)
{
    const size_t left = p->b->n - col, out_row_bytes = p->args->out_row_bytes;
    const qk_store_rows rows = rows_of(p, a);
    char *out = (char *)p->args->out + a->row * out_row_bytes + col * p->element_bytes;
    if (p->gemm->run_store[p->args->output] && left >= tile->n && !rows.row_sums && !rows.a_zero_point) {
        p->gemm->run_store[p->args->output](tile, &p->columns, col, &rows, out, out_row_bytes);
        return;
    }
    p->gemm->run(tile);
    if (left >= tile->n) {
        p->store(tile->sums, p->gemm->nr, a->m, tile->n, &p->columns, col, &rows, out, out_row_bytes);
        return;
    }
    int32_t edge[QK_MAX_MR * QK_MAX_NR];
    const size_t edge_row_bytes = tile->n * p->element_bytes;
    p->store(tile->sums, p->gemm->nr, a->m, tile->n, &p->columns, col, &rows, edge, edge_row_bytes);
    for (size_t i = 0; i < a->m; i++)
        memcpy(out + i * out_row_bytes, (char *)edge + i * edge_row_bytes, left * p->element_bytes);
}

/* A tile whose accumulators may exceed 32 bits: chunks of k in 64, then the store kernels' formulas in scalar code. */
static void wide_tile(const qk_product *p, const qk_gemm_tile *whole, const panel *a, size_t col)
{
    const qk_gemm_args *args = p->args;
    const size_t nr = p->gemm->nr, chunk_steps = WIDE_CHUNK / p->gemm->kr;
    const size_t columns = p->b->n - col < nr ? p->b->n - col : nr;
    const qk_store_rows rows = rows_of(p, a);
    int64_t acc[QK_MAX_MR * QK_MAX_NR] = {0};
    qk_gemm_tile tile = *whole;

    for (size_t step = 0; step < p->b->k_steps; step += chunk_steps) {
        tile.first_step = (uint32_t)step;
        tile.k_steps = (uint32_t)(p->b->k_steps - step < chunk_steps ? p->b->k_steps - step : chunk_steps);
        p->gemm->run(&tile);
        for (size_t i = 0; i < a->m; i++)
            for (size_t j = 0; j < tile.n; j++)
                acc[i * nr + j] += tile.sums[i * nr + j];
    }
    for (size_t i = 0; i < a->m; i++) {
        char *out = (char *)args->out + (a->row + i) * args->out_row_bytes + col * p->element_bytes;
        int64_t a_zero_point = rows.a_zero_point ? rows.a_zero_point[i] : args->a_zero_point[0] + p->a_shift;
        for (size_t j = 0; j < columns; j++) {
            size_t c = col + j;
            int64_t exact = acc[i * nr + j] - a_zero_point * p->columns.column_sums[c];
            if (rows.row_sums)
                exact -= (int64_t)rows.row_sums[i] * p->columns.b_zero_point[c];
            if (args->bias_s32)
                exact += args->bias_s32[c];
            float mult = rows.row_scales ? p->columns.mult[c] * rows.row_scales[i] : p->columns.mult[c];
            float y = qk_clamp_f32((float)exact * mult + p->columns.bias[c], p->columns.low, p->columns.high);
            if (args->output == QK_OUT_F32)
                ((float *)out)[j] = y;
            else
                ((uint8_t *)out)[j] = (uint8_t)(qk_round_s32(y) + args->out_zero_point);
        }
    }
}

/* -------------------------------------------------------------------------------------------------- blocks */

/* A block of m rows of A from `row` on, packed in panels of nearly equal heights. */
typedef struct block {
    size_t row, m, panels;
    size_t height, taller; /* of the panels; as many of the first have a row more */
    uint8_t *packed_a;
    int32_t *row_sums; /* or NULL */
    int32_t *acc;      /* sums between the chunks of k, [m][nr] */
    uint8_t *panel_of_b; /* by panels: where each is packed */
} block;

static panel panel_of(const qk_product *p, const block *rows, size_t i)
{
    const size_t at = i * rows->height + (i < rows->taller ? i : rows->taller);
    return (panel){rows->packed_a + at * p->a_stride, rows->row + at, rows->height + (i < rows->taller),
                   rows->row_sums ? rows->row_sums + at : NULL};
}

static void pack_block(const qk_product *p, const block *rows)
{
    const qk_matrix *a = &p->args->a;
    for (size_t i = 0; i < rows->panels; i++) {
        const panel to = panel_of(p, rows, i);
        p->gemm->pack_a(a->data + (ptrdiff_t)to.row * a->row_stride, a->row_stride, a->col_stride, to.m, a->cols,
                        p->a_flip, (uint8_t *)to.data, p->a_stride, (int32_t *)to.row_sums);
    }
}

/* The panel of B that starts at column col. */
static const uint8_t *panel_of_b(const qk_product *p, const block *rows, size_t col)
{
    if (!p->by_panels)
        return p->packed + qk_packed_panel(p->b, col / p->b->nr);
    qk_pack_panel(&p->args->plain_b, p->b, p->own_packed, col, rows->panel_of_b);
    qk_prepare_terms(p, col, p->b->n - col < p->b->nr ? p->b->n : col + p->b->nr);
    return rows->panel_of_b;
}

/* All of k for the block and the panel of B that starts at column col. */
static void multiply_panel(const qk_product *p, const block *rows, size_t col)
{
    const qk_packed_b *b = p->b;
    const size_t n = qk_packed_width(b, col), step_bytes = n * b->kr;
    _Alignas(64) int32_t tile_sums[QK_MAX_MR * QK_MAX_NR];
    qk_gemm_tile tile = {.b = panel_of_b(p, rows, col), .a_stride = p->a_stride, .n = (uint32_t)n, .sums = tile_sums};

    for (size_t first = 0; first == 0 || first < b->k_steps; first += p->chunk_steps) {
        const size_t steps = b->k_steps - first < p->chunk_steps ? b->k_steps - first : p->chunk_steps;
        const int is_last = first + steps == b->k_steps;
        /* By panels all that there is of packed B lies in the cache: tiles then prefetch what they already have. */
        const uint8_t *next = p->by_panels ? tile.b : tile.b + (first + steps) * step_bytes;
        tile.first_step = (uint32_t)first;
        tile.k_steps = (uint32_t)steps;
        tile.accumulate = first > 0;
        tile.prefetch_stride = p->by_panels        ? 0
                               : rows->panels == 1 ? step_bytes
                                                   : step_bytes / rows->panels + 1;
        for (size_t i = 0; i < rows->panels; i++) {
            const panel a = panel_of(p, rows, i);
            tile.a = a.data;
            tile.m = (uint32_t)a.m;
            tile.prefetch = rows->panels == 1 ? tile.b + first * step_bytes + AHEAD_BYTES
                                              : next + i * steps * tile.prefetch_stride;
            if (p->chunk_steps < b->k_steps)
                tile.sums = rows->acc + (a.row - rows->row) * p->gemm->nr;
            if (p->wide)
                wide_tile(p, &tile, &a, col);
            else if (is_last)
                finish_tile(p, &tile, &a, col);
            else
                p->gemm->run(&tile);
        }
    }
}

/* A task: part i of the output. */
static void multiply_part(void *context, size_t i)
{
    const qk_product *p = context;
    const size_t mr = p->gemm->mr, nr = p->gemm->nr, m = p->args->a.rows;
    const size_t tiles = ceil_div(m, mr), panels = ceil_div(p->b->n, nr);
    const range tile_rows = part_of(tiles, i / p->column_parts, p->row_parts);
    const range columns = part_of(panels, i % p->column_parts, p->column_parts);
    const size_t row_end = least(tile_rows.end * mr, m), col_end = least(columns.end * nr, p->b->n);
    uint8_t *scratch = p->scratch + i * p->part_bytes;
    size_t work = 0;
    block rows = {
        .packed_a = scratch,
        .row_sums = p->b->any_zero_point ? (int32_t *)(scratch + p->row_sum_offset) : NULL,
        .acc = (int32_t *)(scratch + p->acc_offset),
        .panel_of_b = scratch + p->panel_offset,
    };
    for (rows.row = tile_rows.first * mr; rows.row < row_end; rows.row += rows.m) {
        rows.m = least(row_end - rows.row, p->block_rows);
        rows.panels = ceil_div(rows.m, mr);
        rows.height = rows.m / rows.panels;
        rows.taller = rows.m % rows.panels;
        pack_block(p, &rows);
        for (size_t col = columns.first * nr; col < col_end; col += nr) {
            multiply_panel(p, &rows, col);
            if (qk_interrupted_after(&work, rows.m * nr * p->b->k))
                return;
        }
    }
}

/* ------------------------------------------------------------------------------------------------- products */

/* The grid of parts: as many as threads and work allow, of nearly equal size; among those, along the longer side,
 * so that the larger operand is read once. */
static void cut_into_parts(qk_product *p)
{
    const size_t m = p->args->a.rows, n = p->b->n;
    const size_t tiles = ceil_div(m, p->gemm->mr), panels = ceil_div(n, p->gemm->nr);
    const size_t cost = p->args->b ? m : m + ROWS_OF_PACKING; /* in rows */
    const double work = (double)cost * (double)n * (double)p->b->k / SMALL_PART;
    const size_t threads = (size_t)qk_get_num_threads(), parts = work < (double)threads ? (size_t)work : threads;
    size_t best = tiles * panels;
    p->row_parts = p->column_parts = 1;
    for (size_t across = 1; across <= parts; across++) { /* parts along the longer side, falling */
        const size_t longer = parts / across, columns = n >= m ? longer : across, rows = n >= m ? across : longer;
        const size_t largest = ceil_div(tiles, rows) * ceil_div(panels, columns);
        if (rows <= tiles && columns <= panels && largest < best) {
            best = largest;
            p->row_parts = rows;
            p->column_parts = columns;
        }
    }
}

/* The sizes of blocks and chunks, of nearly equal size each. */
static void choose_blocks(qk_product *p)
{
    const qk_gemm_s8_type *gemm = p->gemm;
    const size_t lines = ceil_div((size_t)p->b->k_steps * gemm->kr * gemm->a_bytes, CACHE_LINE);
    /* Rows an odd number of lines apart, lest the rows of a tile meet in the same sets of the cache. */
    p->a_stride = (gemm->a_by_rows ? lines | 1 : lines ? lines : 1) * CACHE_LINE;

    const size_t tiles = ceil_div(ceil_div(p->args->a.rows, gemm->mr), p->row_parts);
    const size_t fitting = qk_caches.l2 / 2 / (p->a_stride * gemm->mr) + 1;
    const size_t rows = ceil_div(tiles, ceil_div(tiles, fitting)) * gemm->mr;
    p->block_rows = rows < p->args->a.rows ? rows : p->args->a.rows;

    const size_t chunks = ceil_div((size_t)p->b->k_steps * gemm->nr * gemm->kr, 3 * qk_caches.l1d);
    p->chunk_steps = p->wide || chunks < 2 ? (p->b->k_steps ? p->b->k_steps : 1) : ceil_div(p->b->k_steps, chunks);
}

qk_status qk_int8_gemm(const qk_gemm_args *args)
{
    QK_CALL;
    qk_packed_b header; /* of plain B */
    qk_product p = {.args = args, .gemm = qk_kernels.gemm_s8, .b = args->b ? &args->b_header : &header, .packed = args->b};
    size_t b_bytes = 0; /* of B in the scratch memory */
    qk_status status = QK_OK;
    if (!args->b)
        status = qk_describe_b(&args->plain_b, args->b_zero_point, args->b_zero_point_count, qk_own_b_layout(), &header,
                               &b_bytes);
    if (status != QK_OK)
        return status;
    const size_t m = args->a.rows, padded = p.b->padded_n;
    if (!qk_is_own_b_layout(p.b))
        return QK_FOREIGN_LAYOUT;
    status = qk_check_gemm_values(args, p.b->n);
    if (status != QK_OK)
        return status;
    p.wide = args->output != QK_OUT_S32 && qk_gemm_reach(args, p.b) > INT32_MAX;
    if (p.wide && args->output == QK_OUT_Q8_FIXED)
        return QK_FIXED_RANGE;
    if (p.wide && p.b->k > 1 << 23) /* sums of 2**23 bytes still fit int32 */
        return QK_TOO_LARGE;
    if (m == 0 || p.b->n == 0)
        return QK_OK;

    switch (args->output) {
    case QK_OUT_S32: p.store = qk_kernels.store_s32; p.element_bytes = 4; break;
    case QK_OUT_F32: p.store = qk_kernels.store_f32; p.element_bytes = 4; break;
    case QK_OUT_Q8: p.store = qk_kernels.store_q8; p.element_bytes = 1; break;
    default: p.store = qk_kernels.store_q8_fixed; p.element_bytes = 1; break;
    }
    p.a_flip = args->a.is_signed == p.gemm->a_signed ? 0 : 0x80;
    p.a_shift = qk_shift_of_flip(p.a_flip, args->a.is_signed);
    cut_into_parts(&p);
    choose_blocks(&p);
    p.by_panels = !args->b && p.row_parts == 1 && p.block_rows == m;
    if (p.by_panels)
        b_bytes = p.b->panels; /* all but them */

    /* One piece of scratch memory, on the stack when small: B, arrays of the whole product, then those of each part. */
    const size_t zero_point_bytes = args->a_zero_point_count > 1 ? round_up(m * sizeof(int32_t)) : 0;
    const size_t int_bytes = round_up((args->output == QK_OUT_Q8_FIXED ? 4 : 1) * padded * sizeof(int32_t));
    const size_t float_bytes = args->output == QK_OUT_S32 ? 0 : round_up(2 * padded * sizeof(float));
    p.panel_offset = p.block_rows * p.a_stride;
    p.row_sum_offset = p.panel_offset + (p.by_panels ? p.b->panel_bytes : 0);
    p.acc_offset = p.row_sum_offset + (p.b->any_zero_point ? round_up(p.block_rows * sizeof(int32_t)) : 0);
    p.part_bytes = p.acc_offset + (p.chunk_steps < p.b->k_steps ? p.block_rows * p.gemm->nr * sizeof(int32_t) : 0);
    p.part_bytes = round_up(p.part_bytes);
    const size_t parts = p.row_parts * p.column_parts;
    const size_t total = b_bytes + zero_point_bytes + int_bytes + float_bytes + parts * p.part_bytes;
    _Alignas(64) uint8_t stack_scratch[STACK_SCRATCH];
    uint8_t *heap_scratch = total > sizeof stack_scratch ? aligned_alloc(CACHE_LINE, total) : NULL;
    if (total > sizeof stack_scratch && !heap_scratch)
        return QK_NO_MEMORY;
    uint8_t *scratch = heap_scratch ? heap_scratch : stack_scratch;
    if (!args->b) {
        p.packed = p.own_packed = scratch;
        qk_begin_packed_b(&header, args->b_zero_point, args->b_zero_point_count, p.own_packed);
        if (!p.by_panels)
            status = qk_pack_panels(&args->plain_b, p.b, p.own_packed);
        scratch += b_bytes;
    }
    if (zero_point_bytes) {
        p.a_zero_point = (int32_t *)scratch;
        for (size_t i = 0; i < m; i++)
            p.a_zero_point[i] = args->a_zero_point[i] + p.a_shift;
    }
    p.int_columns = (int32_t *)(scratch + zero_point_bytes);
    p.float_columns = (float *)(scratch + zero_point_bytes + int_bytes);
    p.scratch = scratch + zero_point_bytes + int_bytes + float_bytes;

    if (status == QK_OK)
        status = qk_prepare_columns(&p);
    if (status == QK_OK)
        status = qk_parallel_for(multiply_part, &p, parts);
    free(heap_scratch);
    return status;
}

uint64_t qk_gemm_peak(uint64_t rounds) { return qk_kernels.gemm_s8->peak(rounds); }
