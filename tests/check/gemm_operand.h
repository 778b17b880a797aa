/* The two sides of a gemm_s8 kernel seen alike: rows of A, or columns of B, in panels of so many lanes. */
#ifndef CHECK_GEMM_OPERAND_H
#define CHECK_GEMM_OPERAND_H

#include "harness.h"

typedef struct operand {
    const char *name;
    void (*pack)(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k,
                 uint8_t flip, void *panel, int32_t *sums);
    size_t lanes, kr, bytes; /* bytes of a packed element */
    int is_signed;
    int is_padded; /* a panel of fewer lanes is filled up with zeros (B), or holds those lanes only (A) */
    buffer source, panel, sums;
} operand;

static inline void set_operand_a(operand *o, qk_gemm_s8_type *g)
{
    o->name = "A";
    o->pack = g->pack_a;
    o->lanes = g->mr;
    o->kr = g->kr;
    o->bytes = g->a_bytes;
    o->is_signed = g->a_signed;
    o->is_padded = 0;
    o->source.name = "source of A";
    o->panel.name = "panel of A";
    o->sums.name = "sums of A";
}

static inline void set_operand_b(operand *o, qk_gemm_s8_type *g)
{
    o->name = "B";
    o->pack = g->pack_b;
    o->lanes = g->nr;
    o->kr = g->kr;
    o->bytes = 1;
    o->is_signed = g->b_signed;
    o->is_padded = 1;
    o->source.name = "source of B";
    o->panel.name = "panel of B";
    o->sums.name = "sums of B";
}

static inline int32_t value_of(uint8_t byte, int is_signed)
{
    return is_signed && byte > 127 ? byte - 256 : byte;
}

static inline uint8_t flip_for(const operand *o, int source_signed)
{
    return source_signed == o->is_signed ? 0 : 0x80;
}

static inline size_t panel_lanes(const operand *o, size_t count)
{
    return o->is_padded ? o->lanes : count;
}

static inline size_t step_count(const operand *o, size_t k)
{
    return (k + o->kr - 1) / o->kr;
}

/* A panel of `count` lanes and its sums: exactly as large as kernels.h says, and, where it ends at a guard page, no
 * better aligned. Its size is a multiple of its alignment, so that no slack is left there. */
static inline void place_panel(operand *o, size_t count, size_t k)
{
    const size_t lanes = panel_lanes(o, count);
    place_aligned(&o->panel, step_count(o, k) * lanes * o->kr * o->bytes, o->kr * o->bytes);
    place_aligned(&o->sums, lanes * sizeof(int32_t), sizeof(int32_t));
}

void check_gemm_packers(qk_gemm_s8_type *g);

#endif
