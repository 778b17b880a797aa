/* What the files of the GEMM driver share: one product, checked and prepared. */
#ifndef QK_OPS_GEMM_H
#define QK_OPS_GEMM_H

#include "kernels.h"
#include "packed_b.h"

/* Everything about one product that does not change from tile to tile. */
typedef struct qk_product {
    const qk_gemm_args *args;
    qk_gemm_s8_type *gemm;
    const qk_packed_b *b;  /* the header, */
    const uint8_t *packed; /* and what it describes, */
    uint8_t *own_packed;   /* the same where it is packed for this product alone; else NULL */
    int by_panels;        /* its panels are packed one by one, each when it is multiplied */
    qk_store_type *store;
    qk_store_args columns;
    size_t element_bytes; /* of the output */
    int wide;             /* the sums may exceed 32 bits */
    uint8_t a_flip;
    int32_t a_shift;      /* what the flip adds to a zero point of A */

    int32_t *a_zero_point; /* [M] moved, when there is one a row; else NULL */
    int32_t *int_columns;  /* column_term [padded_n], then the fixed-point triple */
    float *float_columns;  /* mult [padded_n], bias [padded_n] */

    /* Blocking. */
    size_t a_stride;    /* of a packed row of A */
    size_t block_rows;  /* of A, packed at a time */
    size_t chunk_steps; /* of k, multiplied at a time */
    size_t row_parts, column_parts; /* the grid of tasks */
    uint8_t *scratch;               /* of all parts */
    size_t part_bytes;              /* in a part's: packed A, and from these offsets */
    size_t panel_offset, row_sum_offset, acc_offset; /* by panels one of B, row sums, sums of a block */
} qk_product;

/* Whether scales, zero points and bias are in range. */
qk_status qk_check_gemm_values(const qk_gemm_args *args, size_t n);

/* The largest |accumulator| that types, zero points, K and bias allow; saturates. */
uint64_t qk_gemm_reach(const qk_gemm_args *args, const qk_packed_b *b);

/* Fill the arrays indexed by column, zero past n. With by_panels, the terms of a panel's columns, which take its column
 * sums, follow when it has been packed. */
qk_status qk_prepare_columns(qk_product *p);
void qk_prepare_terms(const qk_product *p, size_t col, size_t end);

#endif
