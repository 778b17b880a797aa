/* See gemm_operand.h. */
#include "gemm_operand.h"

void set_operand_a(operand *o, qk_gemm_s8_type *gemm)
{
    o->name = "A";
    o->gemm = gemm;
    o->is_b = 0;
    o->lanes = gemm->mr;
    o->unit = 1;
    o->kr = gemm->kr;
    o->bytes = gemm->a_bytes;
    o->alignment = o->kr * o->bytes;
    o->by_rows = gemm->a_by_rows;
    o->is_signed = gemm->a_signed;
    o->source.name = "source of A";
    o->panel.name = "panel of A";
    o->sums.name = "sums of A";
}

void set_operand_b(operand *o, qk_gemm_s8_type *gemm)
{
    o->name = "B";
    o->gemm = gemm;
    o->is_b = 1;
    o->lanes = gemm->nr;
    o->unit = gemm->n_unit;
    o->kr = gemm->kr;
    o->bytes = 1;
    o->alignment = 64;
    o->by_rows = 0;
    o->is_signed = gemm->b_signed;
    o->source.name = "source of B";
    o->panel.name = "panel of B";
    o->sums.name = "sums of B";
}

void place_panel(operand *o, size_t count, size_t k, size_t gap)
{
    const size_t lanes = panel_lanes(o, count), lane_bytes = step_count(o, k) * o->kr * o->bytes;
    o->row_bytes = (lane_bytes + 3) / 4 * 4 + gap;
    /* Nothing says that there is a gap after the last row. */
    const size_t bytes = o->by_rows ? (lanes - 1) * o->row_bytes + lane_bytes : lanes * lane_bytes;
    place_aligned(&o->panel, bytes, o->alignment);
    place_aligned(&o->sums, lanes * sizeof(int32_t), sizeof(int32_t));
}

void pack_lanes(const operand *o, const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k,
                uint8_t flip, int32_t *sums)
{
    if (o->is_b)
        o->gemm->pack_b(src, stride, k_stride, count, k, flip, o->panel.data, sums);
    else
        o->gemm->pack_a(src, stride, k_stride, count, k, flip, o->panel.data, o->row_bytes, sums);
}

void fill_source(operand *o, size_t count, size_t k, enum byte_pattern pattern)
{
    fill_bytes(place(&o->source, count * k, 1), count * k, pattern);
}

void pack_source(operand *o, size_t count, size_t k, uint8_t flip, size_t gap)
{
    place_panel(o, count, k, gap);
    pack_lanes(o, o->source.data, o->is_b ? 1 : (ptrdiff_t)k, o->is_b ? (ptrdiff_t)count : 1, count, k, flip, NULL);
    freeze(&o->panel);
}

qk_gemm_tile tile_of(const operand *a, const operand *b, size_t m, size_t n)
{
    const uintptr_t addresses[] = {0, 1, UINTPTR_MAX, UINTPTR_MAX / 3, (uintptr_t)b->panel.data,
                                   (uintptr_t)b->panel.pages - 1};
    const size_t strides[] = {0, 1, 64, 4099, SIZE_MAX / 5, SIZE_MAX};
    return (qk_gemm_tile){
        .a = a->panel.data,
        .b = b->panel.data,
        .a_stride = a->row_bytes,
        .m = (uint32_t)m,
        .n = (uint32_t)n,
        .prefetch = (const uint8_t *)addresses[random_below(sizeof addresses / sizeof *addresses)],
        .prefetch_stride = strides[random_below(sizeof strides / sizeof *strides)],
    };
}
