/* A weight in blocks along k: its numbers, and the records that a gemm_grouped kernel reads. */
#ifndef CHECK_GROUPED_WEIGHT_H
#define CHECK_GROUPED_WEIGHT_H

#include "harness.h"

enum { MAX_BLOCK = 256, MAX_BLOCKS = 17 };

typedef struct weight_shape {
    qk_codes codes;
    size_t block, blocks;
    uint8_t scale_bytes, has_zero_points;
    uint8_t row_tables, window;
} weight_shape;

typedef struct grouped_weight {
    qk_gemm_grouped_type *gemm;
    weight_shape shape;
    qk_records records;
    uint8_t flip; /* what bytes are stored xor: see bytes_signed */
    /* Of block b and column j at [b * nr + j]; without zero points one number, everywhere. */
    float scales[MAX_BLOCKS * QK_MAX_NR];
    uint8_t zeros[MAX_BLOCKS * QK_MAX_NR];
    uint8_t stored[MAX_BLOCKS * QK_MAX_NR * MAX_BLOCK]; /* what there is to pack: codes, or first bytes of a stream */
    uint8_t codes[MAX_BLOCKS * QK_MAX_NR * MAX_BLOCK];  /* bytes to multiply: value k at [(b * nr + j) * block + k] */
    buffer levels, packed, plain;
} grouped_weight;

unsigned code_bits(qk_codes codes);

/* The zero point as kernels count it. */
static inline int32_t stored_zero(const grouped_weight *w, uint8_t zero) { return zero - w->flip; }

/* Choose the numbers of a weight and place its records. */
void make_weight(grouped_weight *w, qk_gemm_grouped_type *gemm, weight_shape shape, enum byte_pattern codes);

/* A scale of many kinds: ordinary, subnormal, extreme, of any bits; sums of products with two such are finite. */
float random_scale(void);

#endif
