/* The packed right-hand side of a GEMM: one flat, position-independent buffer, so that it can be copied, stored and
 * mapped from a file.
 *
 *      qk_packed_b header | zero_point int32[padded_n] | column_sums int32[padded_n] | panel 0 | panel 1 | ...
 *
 * Each part starts at a multiple of 64 bytes. Columns past n are zero everywhere.
 */
#ifndef QK_PACKED_B_H
#define QK_PACKED_B_H

#include "qkernels.h"

typedef struct qk_packed_b {
    uint64_t k, n, padded_n;                  /* n rounded up to the kernel's n_unit */
    uint64_t zero_point, column_sums, panels; /* byte offsets of the parts */
    uint64_t panel_bytes;                     /* distance of panels: k_steps * nr * kr, rounded up to 64 */
    uint32_t k_steps;
    int32_t magnitude;         /* the largest |b - zero_point| that the type and zero points allow */
    uint8_t nr, kr, n_unit;    /* a qk_b_layout */
    uint8_t flip;              /* panels hold byte ^ flip, zero_point is moved likewise */
    uint8_t is_signed;         /* of the original bytes */
    uint8_t any_zero_point;    /* some zero_point is not 0 */
    uint8_t unused[2];
} qk_packed_b;

/* Part of files: a change makes a new version of them. */
_Static_assert(sizeof(qk_packed_b) == 72 && sizeof(size_t) == 8, "a header without padding, of 64-bit machines");

/* [padded_n], moved by what the flip adds. */
static inline const int32_t *qk_packed_zero_point(const qk_packed_b *b)
{
    return (const int32_t *)((const char *)b + b->zero_point);
}

/* [padded_n]: sum over k of (b[k][n] - zero_point[n]), which the flip does not change. */
static inline const int32_t *qk_packed_column_sums(const qk_packed_b *b)
{
    return (const int32_t *)((const char *)b + b->column_sums);
}

static inline const uint8_t *qk_packed_panel(const qk_packed_b *b, size_t panel)
{
    return (const uint8_t *)b + b->panels + panel * b->panel_bytes;
}

/* The columns of the panel that starts at column col. */
static inline size_t qk_packed_width(const qk_packed_b *b, size_t col)
{
    return b->padded_n - col < b->nr ? b->padded_n - col : b->nr;
}

/* What xor `flip` does to a zero point: bytes read as unsigned are 128 more than their signed reading. */
static inline int32_t qk_shift_of_flip(uint8_t flip, int from_signed)
{
    return !flip ? 0 : from_signed ? 128 : -128;
}

/* Whether it is packed as the selected ISA's kernel takes it. */
int qk_is_own_b_layout(const qk_packed_b *b);

/* The packed form of b: its header, and the bytes of the whole. */
qk_status qk_describe_b(const qk_matrix *b, const int32_t *zero_point, size_t zero_point_count, qk_b_layout layout,
                        qk_packed_b *header, size_t *bytes);

/* Write what the column sums and the panels follow: the header and the zero points. */
void qk_begin_packed_b(const qk_packed_b *header, const int32_t *zero_point, size_t zero_point_count,
                       qk_packed_b *packed);

/* The panel that starts at column col, wherever it is wanted, and its column sums where they belong. */
void qk_pack_panel(const qk_matrix *b, qk_packed_b *packed, size_t col, uint8_t *panel);

/* All of them. */
void qk_pack_panels(const qk_matrix *b, qk_packed_b *packed);

#endif
