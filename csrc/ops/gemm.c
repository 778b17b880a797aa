/* The integer matrix product: blocking and packing around the kernels' register tiles.
 *
 *      for each block of rows of A that fits the L2 cache        pack it: panels of at most mr rows
 *        for each panel of B (nr columns)                        packed before, read once a block
 *          for each panel of A in the block                      run: mr x nr sums; store: scale, clamp, write
 *
 * Exactness: kernels multiply whatever signedness they like best, the packers flip bytes to it, and with the zero
 * points moved likewise
 *      sum (a - za)(b - zb) = sum ab - zb * sum a - za * sum (b - zb)
 * holds modulo 2**32 and so gives the exact sum whenever that fits int32. Where it may not and the result is scaled, k
 * is split into chunks whose sums fit, added up in 64 bits.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "packed_b.h"
#include "requant.h"

enum {
    A_BLOCK_BYTES = 256 * 1024, /* of packed A that should stay in a core's L2 cache */
    WIDE_CHUNK = 32768,         /* k values whose raw sums fit int32: 255 * 255 * k < 2**31 */
    STACK_SCRATCH = 16 * 1024,
};

/* Everything about one product that does not change from tile to tile. */
typedef struct product {
    const qk_gemm_args *args;
    qk_gemm_s8_type *gemm;
    const qk_packed_b *b;
    qk_store_type *store;
    qk_store_args columns;
    size_t element_bytes; /* of the output */
    uint8_t a_flip;
    int32_t a_shift;               /* what the flip adds to a zero point of A */
    int32_t *a_zero_point;         /* [M] moved, when there is one a row; else NULL */
    float *float_columns;          /* mult [padded_n], bias [padded_n] */
    int32_t *int_columns;          /* column_term [padded_n], then the fixed-point triple */
} product;

/* ----------------------------------------------------------------------------------------------- arguments */

static int positive(float x) { return x > 0.0f && x < INFINITY; }

static qk_status check_values(const qk_gemm_args *args, size_t n)
{
    int32_t qmin = args->a.is_signed ? -128 : 0, qmax = args->a.is_signed ? 127 : 255;
    for (size_t i = 0; i < args->a_zero_point_count; i++)
        if (args->a_zero_point[i] < qmin || args->a_zero_point[i] > qmax)
            return QK_BAD_ZERO_POINT;
    if (args->output == QK_OUT_S32)
        return QK_OK;
    for (size_t j = 0; j < args->scales_count; j++)
        if (!positive(args->scales[j]))
            return QK_BAD_SCALE;
    if (args->row_scales)
        for (size_t i = 0; i < args->a.rows; i++)
            if (!positive(args->row_scales[i]))
                return QK_BAD_ROW_SCALES;
    if (args->bias_f32)
        for (size_t j = 0; j < n; j++)
            if (!isfinite(args->bias_f32[j]))
                return QK_BAD_BIAS;
    if (args->output != QK_OUT_F32 && !positive(args->out_scale))
        return QK_BAD_OUT_SCALE;
    return QK_OK;
}

/* The largest |accumulator| that types, zero points, K and bias allow; saturates. */
static uint64_t reach_of(const qk_gemm_args *args, const qk_packed_b *b)
{
    int32_t qmin = args->a.is_signed ? -128 : 0, qmax = args->a.is_signed ? 127 : 255, a_reach = 0;
    for (size_t i = 0; i < args->a_zero_point_count; i++) {
        int32_t z = args->a_zero_point[i];
        int32_t reach = qmax - z > z - qmin ? qmax - z : z - qmin;
        a_reach = reach > a_reach ? reach : a_reach;
    }
    uint64_t bias = 0, total;
    for (size_t j = 0; args->bias_s32 && j < b->n; j++) {
        uint64_t magnitude = (uint64_t)llabs((long long)args->bias_s32[j]);
        bias = magnitude > bias ? magnitude : bias;
    }
    if (__builtin_mul_overflow(b->k, (uint64_t)(a_reach * b->magnitude), &total))
        return UINT64_MAX;
    return total > UINT64_MAX - bias ? UINT64_MAX : total + bias;
}

/* ------------------------------------------------------------------------------------------------- columns */

/* Multiplier and shifts of scale / out_scale = mult / 2**31 * 2**(left - right), as TFLite's QuantizeMultiplier. */
static qk_status fixed_point(float scale, float out_scale, int32_t *mult, int32_t *left, int32_t *right)
{
    int exponent;
    double fraction = frexp((double)scale / (double)out_scale, &exponent);
    long long q31 = llround(fraction * 2147483648.0);
    if (q31 == 2147483648LL) {
        q31 /= 2;
        exponent++;
    }
    if (exponent > 30)
        return QK_FIXED_SCALE;
    if (exponent < -31) {
        q31 = 0;
        exponent = 0;
    }
    *mult = (int32_t)q31;
    *left = exponent > 0 ? exponent : 0;
    *right = exponent < 0 ? -exponent : 0;
    return QK_OK;
}

/* Fill the arrays indexed by column, zero past n. */
static qk_status prepare_columns(product *p)
{
    const qk_gemm_args *args = p->args;
    const size_t n = p->b->n, padded = p->b->padded_n;
    const int32_t *column_sums = qk_packed_column_sums(p->b);
    int32_t *term = p->int_columns;

    p->columns = (qk_store_args){
        .column_term = term,
        .b_zero_point = qk_packed_zero_point(p->b),
        .column_sums = column_sums,
        .zero_point = args->out_zero_point,
        .low = args->clamp_low,
        .high = args->clamp_high,
    };
    const uint32_t a_zero_point = p->a_zero_point ? 0 : (uint32_t)(args->a_zero_point[0] + p->a_shift);
    for (size_t j = 0; j < n; j++)
        term[j] = (int32_t)((args->bias_s32 ? (uint32_t)args->bias_s32[j] : 0) -
                            a_zero_point * (uint32_t)column_sums[j]);
    memset(term + n, 0, (padded - n) * sizeof *term);
    if (args->output == QK_OUT_S32)
        return QK_OK;

    if (args->output != QK_OUT_F32) { /* clamp in steps of out_scale, around the zero point */
        float qmin = (float)(args->out_type.qmin - args->out_zero_point);
        float qmax = (float)(args->out_type.qmax - args->out_zero_point);
        p->columns.fixed_low = qk_quantize_s32(args->clamp_low, args->out_scale, qmin, qmax);
        p->columns.fixed_high = qk_quantize_s32(args->clamp_high, args->out_scale, qmin, qmax);
        p->columns.low = (float)p->columns.fixed_low;
        p->columns.high = (float)p->columns.fixed_high;
    }
    if (args->output == QK_OUT_Q8_FIXED) {
        int32_t *mult = term + padded, *left = mult + padded, *right = left + padded;
        memset(mult, 0, 3 * padded * sizeof *mult);
        for (size_t j = 0; j < n; j++) {
            float scale = args->scales[args->scales_count == 1 ? 0 : j];
            qk_status status = fixed_point(scale, args->out_scale, mult + j, left + j, right + j);
            if (status != QK_OK)
                return status;
        }
        p->columns.fixed_mult = mult;
        p->columns.fixed_left = left;
        p->columns.fixed_right = right;
        return QK_OK;
    }
    float *mult = p->float_columns, *bias = mult + padded, largest = 0.0f, largest_row = 1.0f;
    memset(mult, 0, 2 * padded * sizeof *mult);
    for (size_t j = 0; j < n; j++) {
        float scale = args->scales[args->scales_count == 1 ? 0 : j];
        mult[j] = args->output == QK_OUT_Q8 ? scale / args->out_scale : scale;
        largest = mult[j] > largest ? mult[j] : largest;
        if (args->bias_f32) {
            bias[j] = args->output == QK_OUT_Q8 ? args->bias_f32[j] / args->out_scale : args->bias_f32[j];
            if (!isfinite(bias[j]))
                return QK_SCALE_OVERFLOW;
        }
    }
    for (size_t i = 0; args->row_scales && i < args->a.rows; i++)
        largest_row = i == 0 || args->row_scales[i] > largest_row ? args->row_scales[i] : largest_row;
    if (!isfinite(largest) || !isfinite(largest * largest_row))
        return QK_SCALE_OVERFLOW;
    p->columns.mult = mult;
    p->columns.bias = args->bias_f32 ? bias : NULL;
    return QK_OK;
}

/* --------------------------------------------------------------------------------------------------- tiles */

/* A panel of packed A: rows [row, row + m) of the product. */
typedef struct panel {
    const uint8_t *data;
    size_t row, m;
    const int32_t *row_sums; /* of the panel's rows, or NULL when no column has a zero point */
} panel;

static qk_store_rows rows_of(const product *p, const panel *a)
{
    return (qk_store_rows){
        .row_sums = a->row_sums,
        .a_zero_point = p->a_zero_point ? p->a_zero_point + a->row : NULL,
        .row_scales = p->args->row_scales ? p->args->row_scales + a->row : NULL,
    };
}

/* Store whole columns straight to the output, a short last panel by way of a full one. */
static void store_tile(const product *p, const panel *a, size_t col, const int32_t *tile)
{
    const size_t nr = p->gemm->nr, left = p->b->n - col;
    const qk_store_rows rows = rows_of(p, a);
    char *out = (char *)p->args->out + a->row * p->args->out_row_bytes + col * p->element_bytes;
    if (left >= nr) {
        p->store(tile, nr, a->m, nr, &p->columns, col, &rows, out, p->args->out_row_bytes);
        return;
    }
    int32_t edge[QK_MAX_MR * QK_MAX_NR];
    const size_t edge_row_bytes = nr * p->element_bytes;
    p->store(tile, nr, a->m, nr, &p->columns, col, &rows, edge, edge_row_bytes);
    for (size_t i = 0; i < a->m; i++)
        memcpy(out + i * p->args->out_row_bytes, (char *)edge + i * edge_row_bytes, left * p->element_bytes);
}

/* A tile whose accumulators may exceed 32 bits: chunks of k in 64, then the store kernels' formulas in scalar code. */
static void wide_tile(const product *p, const panel *a, size_t col, const uint8_t *b_panel)
{
    const qk_gemm_args *args = p->args;
    const size_t nr = p->gemm->nr, kr = p->gemm->kr, chunk_steps = WIDE_CHUNK / kr;
    const size_t columns = p->b->n - col < nr ? p->b->n - col : nr;
    const qk_store_rows rows = rows_of(p, a);
    _Alignas(64) int32_t tile[QK_MAX_MR * QK_MAX_NR];
    int64_t acc[QK_MAX_MR * QK_MAX_NR] = {0};

    for (size_t step = 0; step < p->b->k_steps; step += chunk_steps) {
        size_t steps = p->b->k_steps - step < chunk_steps ? p->b->k_steps - step : chunk_steps;
        p->gemm->run(a->data + step * a->m * kr * p->gemm->a_bytes, b_panel + step * nr * kr, a->m, steps, tile);
        for (size_t i = 0; i < a->m * nr; i++)
            acc[i] += tile[i];
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
            float y = qk_scale_acc((float)exact, mult, p->columns.bias, c);
            y = qk_clamp_f32(y, p->columns.low, p->columns.high);
            if (args->output == QK_OUT_F32)
                ((float *)out)[j] = y;
            else
                ((uint8_t *)out)[j] = (uint8_t)(qk_round_s32(y) + args->out_zero_point);
        }
    }
}

/* -------------------------------------------------------------------------------------------------- blocks */

/* Rows [row, row + m) of A against all of B. */
static void multiply_block(const product *p, size_t row, size_t m, int wide, uint8_t *packed_a, int32_t *row_sums)
{
    const size_t mr = p->gemm->mr, nr = p->gemm->nr;
    const size_t row_bytes = (size_t)p->b->k_steps * p->gemm->kr * p->gemm->a_bytes;
    const size_t panels = (m + mr - 1) / mr, height = m / panels, taller = m % panels; /* of nearly equal heights */
    const qk_matrix *a = &p->args->a;
    _Alignas(64) int32_t tile[QK_MAX_MR * QK_MAX_NR];

    for (size_t i = 0, at = 0; i < panels; i++) {
        size_t rows = height + (i < taller);
        p->gemm->pack_a(a->data + (ptrdiff_t)(row + at) * a->row_stride, a->row_stride, a->col_stride, rows, a->cols,
                        p->a_flip, packed_a + at * row_bytes, row_sums ? row_sums + at : NULL);
        at += rows;
    }
    for (size_t col = 0; col < p->b->n; col += nr) {
        const uint8_t *b_panel = qk_packed_panel(p->b, col / nr);
        for (size_t i = 0, at = 0; i < panels; i++) {
            panel a_panel = {packed_a + at * row_bytes, row + at, height + (i < taller),
                             row_sums ? row_sums + at : NULL};
            if (wide) {
                wide_tile(p, &a_panel, col, b_panel);
            } else {
                p->gemm->run(a_panel.data, b_panel, a_panel.m, p->b->k_steps, tile);
                store_tile(p, &a_panel, col, tile);
            }
            at += a_panel.m;
        }
    }
}

/* Rows of A in one block: tiles of about A_BLOCK_BYTES, at least one, spread evenly: each block reads all of B. */
static size_t block_rows(const product *p)
{
    const size_t mr = p->gemm->mr, tiles = (p->args->a.rows + mr - 1) / mr;
    const size_t tile_bytes = (size_t)p->b->k_steps * p->gemm->kr * p->gemm->a_bytes * mr;
    const size_t fitting = A_BLOCK_BYTES / (tile_bytes + 1) + 1, blocks = (tiles + fitting - 1) / fitting;
    const size_t rows = (tiles + blocks - 1) / blocks * mr;
    return rows < p->args->a.rows ? rows : p->args->a.rows;
}

/* Bytes for `count` elements, in whole cache lines. */
static size_t part_bytes(size_t count, size_t size) { return (count * size + 63) / 64 * 64; }

qk_status qk_int8_gemm(const qk_gemm_args *args)
{
    product p = {.args = args, .gemm = qk_kernels.gemm_s8, .b = args->b};
    const size_t m = args->a.rows, padded = p.b->padded_n;
    if (p.b->isa != qk_kernels.isa_of[QK_SLOT_gemm_s8])
        return QK_FOREIGN_LAYOUT;
    qk_status status = check_values(args, p.b->n);
    if (status != QK_OK)
        return status;
    int wide = args->output != QK_OUT_S32 && reach_of(args, p.b) > INT32_MAX;
    if (wide && args->output == QK_OUT_Q8_FIXED)
        return QK_FIXED_RANGE;
    if (wide && p.b->k > 1 << 23) /* sums of 2**23 bytes still fit int32 */
        return QK_TOO_LARGE;
    if (m == 0 || p.b->n == 0)
        return QK_OK;

    switch (args->output) {
    case QK_OUT_S32: p.store = qk_kernels.store_s32; p.element_bytes = 4; break;
    case QK_OUT_F32: p.store = qk_kernels.store_f32; p.element_bytes = 4; break;
    case QK_OUT_Q8: p.store = qk_kernels.store_q8; p.element_bytes = 1; break;
    case QK_OUT_Q8_FIXED: p.store = qk_kernels.store_q8_fixed; p.element_bytes = 1; break;
    }
    p.a_flip = args->a.is_signed == p.gemm->a_signed ? 0 : 0x80;
    p.a_shift = qk_shift_of_flip(p.a_flip, args->a.is_signed);

    /* One piece of scratch memory, on the stack when small. */
    const size_t rows = block_rows(&p);
    const size_t a_bytes = part_bytes(rows, (size_t)p.b->k_steps * p.gemm->kr * p.gemm->a_bytes);
    const size_t sum_bytes = p.b->any_zero_point ? part_bytes(rows, sizeof(int32_t)) : 0;
    const size_t zero_point_bytes = args->a_zero_point_count > 1 ? part_bytes(m, sizeof(int32_t)) : 0;
    const size_t int_bytes = part_bytes((args->output == QK_OUT_Q8_FIXED ? 4 : 1) * padded, sizeof(int32_t));
    const size_t float_bytes = args->output == QK_OUT_S32 ? 0 : part_bytes(2 * padded, sizeof(float));
    const size_t total = a_bytes + sum_bytes + zero_point_bytes + int_bytes + float_bytes;
    _Alignas(64) uint8_t stack_scratch[STACK_SCRATCH];
    uint8_t *heap_scratch = total > sizeof stack_scratch ? aligned_alloc(64, total) : NULL;
    if (total > sizeof stack_scratch && !heap_scratch)
        return QK_NO_MEMORY;
    uint8_t *packed_a = heap_scratch ? heap_scratch : stack_scratch;
    int32_t *row_sums = sum_bytes ? (int32_t *)(packed_a + a_bytes) : NULL;
    int32_t *a_zero_point = (int32_t *)(packed_a + a_bytes + sum_bytes);
    p.int_columns = (int32_t *)((uint8_t *)a_zero_point + zero_point_bytes);
    p.float_columns = (float *)((uint8_t *)p.int_columns + int_bytes);

    if (zero_point_bytes) {
        for (size_t i = 0; i < m; i++)
            a_zero_point[i] = args->a_zero_point[i] + p.a_shift;
        p.a_zero_point = a_zero_point;
    }
    status = prepare_columns(&p);
    for (size_t row = 0; status == QK_OK && row < m; row += rows)
        multiply_block(&p, row, m - row < rows ? m - row : rows, wide, packed_a, row_sums);
    free(heap_scratch);
    return status;
}

uint64_t qk_gemm_peak(uint64_t rounds) { return qk_kernels.gemm_s8->peak(rounds); }
