/* The packed right-hand side of a GEMM: one flat, position-independent buffer, so that it can be copied, stored and
 * mapped from a file.
 *
 *      qk_packed_b header | zero_point int32[padded_n] | column_sums int32[padded_n] | panel 0 | panel 1 | ...
 *
 * Each part starts at a multiple of 64 bytes. Columns past n are zero everywhere. The header in front is for files: it is
 * compared once, and then the one that is kept apart (qk_packed_b in qkernels.h) tells where things are. Every other byte
 * may have any value, at any time: it changes results, and nothing else.
 */
#ifndef QK_PACKED_B_H
#define QK_PACKED_B_H

#include "qkernels.h"

/* Part of files: a change makes a new version of them. */
_Static_assert(sizeof(qk_packed_b) == 72 && sizeof(size_t) == 8, "a header without padding, of 64-bit machines");

/* [padded_n], moved by what the flip adds. */
static inline const int32_t *qk_packed_zero_point(const qk_packed_b *b, const uint8_t *packed)
{
    return (const int32_t *)(packed + b->zero_point);
}

/* [padded_n]: sum over k of (b[k][n] - zero_point[n]), which the flip does not change. */
static inline const int32_t *qk_packed_column_sums(const qk_packed_b *b, const uint8_t *packed)
{
    return (const int32_t *)(packed + b->column_sums);
}

/* Where panels start. */
static inline size_t qk_packed_panel(const qk_packed_b *b, size_t panel) { return b->panels + panel * b->panel_bytes; }

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

/* The header of the packed form of b, and the bytes of the whole. */
qk_status qk_describe_b(const qk_matrix *b, const int32_t *zero_point, size_t zero_point_count, qk_b_layout layout,
                        qk_packed_b *header, size_t *bytes);

/* Write what the column sums and the panels follow: the header and the zero points. */
void qk_begin_packed_b(const qk_packed_b *header, const int32_t *zero_point, size_t zero_point_count, uint8_t *packed);

/* The panel that starts at column col, wherever it is wanted, and its column sums where they belong. */
void qk_pack_panel(const qk_matrix *b, const qk_packed_b *header, uint8_t *packed, size_t col, uint8_t *panel);

/* All of them. */
qk_status qk_pack_panels(const qk_matrix *b, const qk_packed_b *header, uint8_t *packed);

#endif
