#include "ops/linear_rows.h"

#include <string.h>

#include "ops/sizes.h"

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

qk_status qk_set_int8_row(const qk_int8_rows *to, const qk_packed_weight *w, qk_rows rows, size_t row, const float *x)
{
    const size_t k = w->k, first = row * to->digits, padded = to->blocks * w->records.block;
    int8_t *a = to->a + first * to->a_stride;
    qk_status status = QK_OK;
    to->row_scales[row] = 1.0f;
    if (rows == QK_ROWS_FLOAT32) {
        int8_t *const digits[] = {a, a + to->a_stride, a + 2 * to->a_stride};
        if (qk_kernels.split_f32(x, k, w->records.block, digits, to->scales + first * to->blocks, to->blocks))
            status = QK_NOT_FINITE;
    } else if (k > 0) {
        const size_t block = rows == QK_ROWS_INT8 ? k : w->records.block, count = (k + block - 1) / block;
        const qk_layout layout = {.rows = 1, .cols = k, .block = block, .channels = 1, .scales = count};
        float *scales = rows == QK_ROWS_INT8 ? to->row_scales + row : to->scales + first * to->blocks;
        int32_t *zero_points = to->terms + first * to->blocks; /* all are 0; the memory is free so far */
        status = qk_dynamic_quantize(x, &layout, (qk_qtype){-128, 127, 1}, (qk_scheme){.symmetric = 1}, (uint8_t *)a,
                                     scales, zero_points);
    }
    for (size_t d = 0; d < to->digits; d++) {
        memset(a + d * to->a_stride + k, 0, padded - k);
        set_terms(to, w, first + d);
    }
    return status;
}
