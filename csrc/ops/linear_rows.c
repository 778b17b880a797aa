#include "ops/linear_rows.h"

#include <math.h>
#include <string.h>

#include "ops/affine.h"
#include "ops/sizes.h"
#include "requant.h"

static const float LEAST_NORMAL = 0x1p-126f; /* the least scale that the kernels choose */

static qk_int8_rows shape_of(const qk_packed_weight *w, qk_rows rows)
{
    /* Rows an odd number of lines apart, lest the rows of a tile meet in the same sets of the cache. */
    const size_t lines = round_up((size_t)w->blocks * w->records.block) / CACHE_LINE | 1;
    const size_t digits = rows == QK_ROWS_FLOAT32 ? 3 : 1;
    return (qk_int8_rows){.digits = digits, .a_stride = lines * CACHE_LINE, .blocks = w->blocks};
}

size_t qk_int8_rows_size(const qk_packed_weight *w, qk_rows rows, size_t m)
{
    const qk_int8_rows shape = shape_of(w, rows);
    const size_t in_blocks = round_up(m * shape.digits * shape.blocks * sizeof(float));
    return m * shape.digits * shape.a_stride + in_blocks * (rows == QK_ROWS_INT8 ? 1 : 2) + round_up(m * sizeof(float));
}

qk_int8_rows qk_int8_rows_in(uint8_t *memory, const qk_packed_weight *w, qk_rows rows, size_t m)
{
    qk_int8_rows to = shape_of(w, rows);
    const size_t in_blocks = round_up(m * to.digits * to.blocks * sizeof(float));
    to.a = (int8_t *)memory;
    memory += m * to.digits * to.a_stride;
    to.terms = (int32_t *)memory;
    memory += in_blocks;
    if (rows != QK_ROWS_INT8) {
        to.scales = (float *)memory;
        memory += in_blocks;
    }
    to.row_scales = (float *)memory;
    return to;
}

/* What the zero points come to in each block of a row; where they differ from column to column, the sums alone. */
static void set_terms(const qk_int8_rows *to, const qk_packed_weight *w, size_t row)
{
    const size_t block = w->records.block;
    const int32_t factor = w->records.has_zero_points ? -1 : -(w->flip ? w->zero - 128 : w->zero);
    for (size_t b = 0; b < to->blocks; b++) {
        const int8_t *a = to->a + row * to->a_stride + b * block;
        int32_t sum = 0;
        for (size_t i = 0; i < block; i++)
            sum += a[i];
        to->terms[row * to->blocks + b] = factor * sum;
    }
}

/* Values whose scale would be below the normal numbers, where that is, too: a multiple of 2**-149. */
static float quantize_tiny(const float *x, size_t n, int8_t *q)
{
    float low = 0.0f, high = 0.0f;
    qk_kernels.minmax_f32(x, n, &low, &high);
    const float largest = -low > high ? -low : high;
    const float steps = ceilf(largest * 0x1p126f * 0x1p23f / 127.0f);
    for (size_t i = 0; i < n; i++)
        q[i] = (int8_t)qk_round_s32(x[i] * 0x1p126f * 0x1p23f / steps);
    return steps * 0x1p-149f;
}

/* Likewise a block of floats, whose digits count steps of 2**-126 or more: all of it is done 2**23 times as large. */
static void split_tiny(const float *x, size_t n, int8_t *const digits[3], float *scales, size_t row_blocks)
{
    float large[QK_LARGEST_BLOCK];
    for (size_t i = 0; i < n; i++)
        large[i] = x[i] * 0x1p23f;
    qk_kernels.split_f32(large, n, n, digits, scales, row_blocks);
    for (size_t d = 0; d < 3; d++)
        scales[d * row_blocks] *= 0x1p-23f;
}

static int is_zero(const float *x, size_t n)
{
    int nonzero = 0;
    for (size_t i = 0; i < n; i++)
        nonzero |= x[i] != 0.0f;
    return !nonzero;
}

static qk_status split_row(const qk_int8_rows *to, const float *x, size_t k, size_t block, int8_t *a, float *scales)
{
    const size_t blocks = to->blocks;
    int8_t *const digits[] = {a, a + to->a_stride, a + 2 * to->a_stride};
    if (qk_kernels.split_f32(x, k, block, digits, scales, blocks))
        return QK_NOT_FINITE;
    for (size_t b = 0; b * block < k; b++) {
        const size_t at = b * block, n = least(block, k - at);
        if (scales[2 * blocks + b] == LEAST_NORMAL && !is_zero(x + at, n))
            split_tiny(x + at, n, (int8_t *[]){digits[0] + at, digits[1] + at, digits[2] + at}, scales + b, blocks);
    }
    return QK_OK;
}

static qk_status quantize_row(const float *x, size_t k, size_t block, int8_t *q, float *scales, int32_t *zero_points)
{
    const qk_status status = qk_dynamic_quantize_row(x, k, block, (qk_qtype){-128, 127, 1}, (qk_scheme){.symmetric = 1},
                                                     (uint8_t *)q, scales, zero_points);
    for (size_t b = 0; status == QK_OK && b < ceil_div(k, block); b++)
        if (scales[b] == LEAST_NORMAL)
            scales[b] = quantize_tiny(x + b * block, least(block, k - b * block), q + b * block);
    return status;
}

qk_status qk_set_int8_row(const qk_int8_rows *to, const qk_packed_weight *w, qk_rows rows, size_t row, const float *x)
{
    const size_t k = w->k, first = row * to->digits, padded = to->blocks * w->records.block;
    int8_t *a = to->a + first * to->a_stride;
    qk_status status = QK_OK;
    to->row_scales[row] = 1.0f;
    if (rows == QK_ROWS_FLOAT32)
        status = split_row(to, x, k, w->records.block, a, to->scales + first * to->blocks);
    else if (k > 0) {
        int32_t *zero_points = to->terms + first * to->blocks; /* all are 0; the memory is free so far */
        if (rows == QK_ROWS_INT8)
            status = quantize_row(x, k, k, a, to->row_scales + row, zero_points);
        else
            status = quantize_row(x, k, w->records.block, a, to->scales + first * to->blocks, zero_points);
    }
    for (size_t d = 0; d < to->digits; d++) {
        memset(a + d * to->a_stride + k, 0, padded - k);
        set_terms(to, w, first + d);
    }
    return status;
}
