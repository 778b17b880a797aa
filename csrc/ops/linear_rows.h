/* The rows of x as a product with a packed weight takes them: int8, in one or three digits a value. */
#ifndef QK_OPS_LINEAR_ROWS_H
#define QK_OPS_LINEAR_ROWS_H

#include "packed_weight.h"

/* Rows [0, m) of x are rows [0, m * digits) here: the digits of a value in rows that follow each other. */
typedef struct qk_int8_rows {
    size_t digits, a_stride, blocks;
    int8_t *a;
    int32_t *terms;    /* [m * digits][blocks], as qk_grouped_tile takes them */
    float *scales;     /* [m * digits][blocks], or NULL */
    float *row_scales; /* [m]; all 1 where scales has the scales of blocks */
} qk_int8_rows;

/* The bytes that `m` rows of x need, a multiple of 64. */
size_t qk_int8_rows_size(const qk_packed_weight *w, qk_rows rows, size_t m);

/* Lay out such memory, aligned to 64 bytes, for the functions below. */
qk_int8_rows qk_int8_rows_in(uint8_t *memory, const qk_packed_weight *w, qk_rows rows, size_t m);

/* Fill row `row` from the k values of x; QK_NOT_FINITE where they hold a NaN or an infinity. */
qk_status qk_set_int8_row(const qk_int8_rows *to, const qk_packed_weight *w, qk_rows rows, size_t row, const float *x);

#endif
