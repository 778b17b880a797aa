/* The product of matrices of signs: packing, blocking and threads around the kernels' register tiles.
 *
 *      acc = k - 2 * (the ones of a xor b)        bit 1 stands for +1, bit 0 for -1
 *
 * Both operands are packed in chunks of k, so that a panel's part of a chunk fits the L1 cache:
 *
 *      chunk 0: | panel 0: word 0 of nr lanes, word 1 of nr lanes, ... | panel 1 | ...        chunk 1: ...
 *
 * A lane is a row of A, whose panels have one lane, or a column of B, with the kernel's nr. Bits past k and lanes past
 * n are zero: they equal each other, and count nothing. Words may be running xors (qk_gemm_b1); these start anew with
 * every chunk.
 *
 *      for each task                       a block of rows of A that fits the L2 cache, by a few panels of B
 *        for each chunk
 *          for each panel of B
 *            for each mr rows of A         run
 */
#include <stdlib.h>
#include <string.h>

#include "caches.h"
#include "calls.h"
#include "kernels.h"
#include "ops/sizes.h"
#include "threads.h"

enum {
    WORD_BITS = 32,
    STEP = 4, /* words that a kernel takes at once */
    PACK_LANES = 64,         /* of a task; a multiple of every nr */
    SMALL_PACKING = 1 << 16, /* words that are not worth another thread */
    SMALL_TASK = 1 << 22,    /* multiply-adds that are not worth another thread */
};

/* Packed rows of A, or columns of B. */
typedef struct operand {
    const uint8_t *bits; /* lanes of ceil(k / 8) bytes */
    size_t lanes, padded_lanes, panel_lanes;
    uint32_t *words;
} operand;

typedef struct product {
    const qk_gemm_b1_type *gemm;
    size_t k, words, chunk_words; /* of a lane: multiples of STEP */
    operand a, b;
    size_t block_rows, task_panels, panel_tasks;
    int32_t *out; /* [a.lanes][b.lanes] */
} product;

/* ------------------------------------------------------------------------------------------------- packing */

/* The words of a panel in a chunk that starts at word `first`. */
static uint32_t *panel_at(const product *p, const operand *x, size_t first, size_t lane)
{
    const size_t words = least(p->words - first, p->chunk_words);
    return x->words + first * x->padded_lanes + lane / x->panel_lanes * x->panel_lanes * words;
}

/* The last bits of a lane, fewer than a word. In which order bytes are in words does not matter to a count. */
static uint32_t tail_word(const uint8_t *bits, size_t count)
{
    uint8_t bytes[sizeof(uint32_t)] = {0};
    uint32_t word;
    memcpy(bytes, bits, ceil_div(count, 8));
    if (count % 8)
        bytes[count / 8] &= (uint8_t)((1u << count % 8) - 1);
    memcpy(&word, bytes, sizeof word);
    return word;
}

static void pack_lane(const product *p, const operand *x, size_t lane)
{
    const size_t whole = lane < x->lanes ? p->k / WORD_BITS : 0, rest = lane < x->lanes ? p->k % WORD_BITS : 0;
    const uint8_t *bits = x->bits + lane * ceil_div(p->k, 8);
    for (size_t first = 0; first < p->words; first += p->chunk_words) {
        const size_t end = least(p->words, first + p->chunk_words);
        uint32_t *to = panel_at(p, x, first, lane) + lane % x->panel_lanes, running = 0;
        for (size_t w = first; w < end; w++, to += x->panel_lanes) {
            uint32_t word = 0;
            if (w < whole)
                memcpy(&word, bits + w * sizeof word, sizeof word);
            else if (w == whole && rest)
                word = tail_word(bits + w * sizeof word, rest);
            running = p->gemm->running ? running ^ word : word;
            *to = running;
        }
    }
}

typedef struct packing {
    const product *p;
    const operand *x;
} packing;

/* A task: some lanes. */
static void pack_lanes(void *context, size_t task)
{
    const packing *job = context;
    const size_t end = least((task + 1) * PACK_LANES, job->x->padded_lanes);
    for (size_t lane = task * PACK_LANES; lane < end; lane++)
        pack_lane(job->p, job->x, lane);
}

static qk_status pack_operand(const product *p, const operand *x)
{
    packing job = {p, x};
    const size_t tasks = ceil_div(x->padded_lanes, PACK_LANES);
    if (x->padded_lanes * p->words >= SMALL_PACKING)
        return qk_parallel_for(pack_lanes, &job, tasks);
    for (size_t task = 0; task < tasks; task++)
        pack_lanes(&job, task);
    return QK_OK;
}

/* ------------------------------------------------------------------------------------------------- multiply */

/* A tile at the right edge, whose panel has columns that the output has not: by way of a whole one. */
static void run_edge(const product *p, const qk_b1_tile *tile, size_t columns)
{
    int32_t whole[QK_MAX_MR * QK_MAX_NR];
    qk_b1_tile edge = *tile;
    edge.out = whole;
    edge.out_stride = p->gemm->nr;
    for (size_t i = 0; tile->accumulate && i < tile->m; i++)
        memcpy(whole + i * edge.out_stride, tile->out + i * tile->out_stride, columns * sizeof *whole);
    p->gemm->run(&edge);
    for (size_t i = 0; i < tile->m; i++)
        memcpy(tile->out + i * tile->out_stride, whole + i * edge.out_stride, columns * sizeof *whole);
}

/* A panel of B by the rows [row, row_end) of A, in the chunk that starts at word `first`. */
static void multiply_panel(const product *p, size_t first, size_t row, size_t row_end, size_t col)
{
    const size_t n = p->b.lanes, words = least(p->words - first, p->chunk_words);
    qk_b1_tile tile = {
        .a_stride = words,
        .b = panel_at(p, &p->b, first, col),
        .words = words,
        .accumulate = first > 0,
        .start = (int32_t)p->k,
        .out_stride = n,
    };
    for (; row < row_end; row += tile.m) {
        tile.a = panel_at(p, &p->a, first, row);
        tile.m = (uint32_t)least(row_end - row, p->gemm->mr);
        tile.out = p->out + row * n + col;
        if (n - col >= p->gemm->nr)
            p->gemm->run(&tile);
        else
            run_edge(p, &tile, n - col);
    }
}

/* A task: a block of rows by some panels. */
static void multiply_part(void *context, size_t task)
{
    const product *p = context;
    const size_t row = task / p->panel_tasks * p->block_rows, row_end = least(row + p->block_rows, p->a.lanes);
    const size_t width = p->task_panels * p->gemm->nr, first_col = task % p->panel_tasks * width;
    const size_t end_col = least(first_col + width, p->b.lanes);
    const size_t panel_work = (row_end - row) * p->gemm->nr * p->chunk_words;
    size_t work = 0;
    for (size_t first = 0; first < p->words; first += p->chunk_words)
        for (size_t col = first_col; col < end_col; col += p->gemm->nr) {
            multiply_panel(p, first, row, row_end, col);
            if (qk_interrupted_after(&work, panel_work))
                return;
        }
}

/* ------------------------------------------------------------------------------------------------- products */

/* The sizes of chunks, blocks and tasks. */
static void choose_blocks(product *p)
{
    const size_t nr = p->gemm->nr, mr = p->gemm->mr;
    p->words = p->k ? ceil_div(p->k, STEP * WORD_BITS) * STEP : STEP; /* without any k, zeros */
    p->chunk_words = least(p->words, qk_caches.l1d / 2 / (nr * STEP * sizeof(uint32_t)) * STEP);
    const size_t block = qk_caches.l2 / 2 / (p->chunk_words * sizeof(uint32_t));
    p->block_rows = least(ceil_div(block, mr) * mr, p->a.lanes);
    const size_t panels = p->b.padded_lanes / nr, panel_work = p->block_rows * nr * p->words * WORD_BITS;
    p->task_panels = ceil_div(SMALL_TASK, panel_work);
    p->panel_tasks = ceil_div(panels, p->task_panels);
}

qk_status qk_binary_gemm(const uint8_t *a, size_t m, const uint8_t *b, size_t n, size_t k, int32_t *out)
{
    QK_CALL;
    const qk_gemm_b1_type *gemm = qk_kernels.gemm_b1;
    const size_t padded_n = ceil_div(n, gemm->nr) * gemm->nr;
    product p = {
        .gemm = gemm,
        .k = k,
        .a = {.bits = a, .lanes = m, .padded_lanes = m, .panel_lanes = 1},
        .b = {.bits = b, .lanes = n, .padded_lanes = padded_n, .panel_lanes = gemm->nr},
        .out = out,
    };
    size_t lanes, bytes;
    if (m == 0 || n == 0)
        return QK_OK;
    if (k > INT32_MAX)
        return QK_TOO_LARGE;
    choose_blocks(&p);
    if (__builtin_add_overflow(m, padded_n, &lanes) ||
        __builtin_mul_overflow(lanes, p.words * sizeof(uint32_t), &bytes) || bytes > PTRDIFF_MAX - CACHE_LINE)
        return QK_TOO_LARGE;
    /* B first: its panels then start at cache lines. */
    uint32_t *words = aligned_alloc(CACHE_LINE, round_up(bytes));
    if (!words)
        return QK_NO_MEMORY;
    p.b.words = words;
    p.a.words = words + padded_n * p.words;
    qk_status status = pack_operand(&p, &p.b);
    if (status == QK_OK)
        status = pack_operand(&p, &p.a);
    if (status == QK_OK)
        status = qk_parallel_for(multiply_part, &p, ceil_div(m, p.block_rows) * p.panel_tasks);
    free(words);
    return status;
}
