/* The packers of gemm_s8 against the layout that kernels.h documents, byte by byte. */
#include "gemm_operand.h"

#include <string.h>

static buffer expected_panel = {.name = "expected panel"}, expected_sums = {.name = "expected sums"};

/* stride, from lane to lane, is stride_k * k + stride_1; k_stride is k_stride_count * count + k_stride_1. */
static const struct arrangement {
    const char *name;
    int stride_k, stride_1, k_stride_count, k_stride_1;
} arrangements[] = {
    {"rows", 1, 0, 0, 1},
    {"padded rows", 1, 5, 0, 1},
    {"columns", 0, 1, 1, 0},
    {"padded columns", 0, 1, 1, 3},
    {"rows from the last", -1, 0, 0, 1},
    {"rows backward", 1, 0, 0, -1},
    {"columns from the last", 0, -1, 1, 0},
    {"columns backward", 0, 1, -1, 0},
    {"spread", 3, 1, 0, 3},
    {"one row repeated", 0, 0, 0, 1},
    {"one column repeated", 0, 1, 0, 0},
};
enum { ARRANGEMENT_COUNT = sizeof arrangements / sizeof *arrangements };

/* Bytes of A may be kept complemented at fixed places of each group of kr, which a group of zeros shows; B, which is
 * unpacked again, may not. */
static uint8_t complement[UINT8_MAX];

static void find_complement(operand *o)
{
    static const uint8_t zeros[UINT8_MAX];
    memset(complement, 0, sizeof complement);
    if (o->is_b || o->bytes > 1)
        return;
    begin_variant("pack_%s of zeros", o->name);
    place_panel(o, 1, o->kr, 0);
    pack_lanes(o, zeros, 0, 1, 1, o->kr, 0, NULL);
    for (size_t j = 0; j < o->kr; j++) {
        complement[j] = o->panel.data[j];
        if (complement[j] != 0 && complement[j] != 0xff)
            fail("panel[%zu]: zero is kept as %d, neither plain nor complemented", j, complement[j]);
    }
}

/* Write down the panel and the sums of `count` lanes as kernels.h describes them; gaps between rows keep what was
 * there. */
static void write_expected(const operand *o, const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride,
                           size_t count, size_t k, uint8_t flip)
{
    const size_t lanes = panel_lanes(o, count);
    uint8_t *panel = place_expected(&expected_panel, &o->panel);
    int32_t *sums = place_expected(&expected_sums, &o->sums);
    memset(sums, 0, lanes * sizeof *sums);
    for (size_t lane = 0; lane < lanes; lane++)
        for (size_t p = 0; p < step_count(o, k) * o->kr; p++) {
            uint8_t *element = panel + place_of(o, lanes, lane, p);
            int16_t value = 0;
            if (lane < count && p < k) {
                uint8_t byte = src[(ptrdiff_t)lane * stride + (ptrdiff_t)p * k_stride] ^ flip;
                value = (int16_t)value_of(byte, o->is_signed);
                sums[lane] += value;
            }
            if (o->bytes == 1)
                *element = (uint8_t)value ^ complement[p % o->kr];
            else
                memcpy(element, &value, sizeof value);
        }
}

static void check_packing(operand *o, const struct arrangement *how, size_t count, size_t k, size_t gap,
                          enum byte_pattern pattern, uint8_t flip, int with_sums)
{
    const ptrdiff_t stride = how->stride_k * (ptrdiff_t)k + how->stride_1;
    const ptrdiff_t k_stride = how->k_stride_count * (ptrdiff_t)count + how->k_stride_1;
    ptrdiff_t first = 0, last = -1; /* the bytes that the strides span */
    if (k > 0) {
        const ptrdiff_t lane_span = (ptrdiff_t)(count - 1) * stride;
        const ptrdiff_t k_span = (ptrdiff_t)(k - 1) * k_stride;
        first = (lane_span < 0 ? lane_span : 0) + (k_span < 0 ? k_span : 0);
        last = (lane_span > 0 ? lane_span : 0) + (k_span > 0 ? k_span : 0);
    }
    const size_t span = (size_t)(last - first + 1);
    const uint8_t *src = fill_bytes(place(&o->source, span, 1), span, pattern) - first;
    freeze(&o->source);

    place_panel(o, count, k, gap);
    write_expected(o, src, stride, k_stride, count, k, flip);
    pack_lanes(o, src, stride, k_stride, count, k, flip, with_sums ? (int32_t *)o->sums.data : NULL);
    expect_same(&o->panel, &expected_panel, U8);
    if (with_sums)
        expect_same(&o->sums, &expected_sums, S32);
    else
        expect_intact(&o->sums);
}

static void check_packer(operand *o)
{
    static const size_t depths[] = {0,  1,  2,  3,  4,  5,  7,  8,  9,  15,  16,
                                    17, 31, 32, 33, 63, 64, 65, 99, 130, 261};
    static const size_t gaps[] = {0, 4, 60, 0, 132};
    find_complement(o);
    for (size_t count = 1; count <= o->lanes; count++) {
        /* Wide panels: near both ends, and near multiples of 8. */
        if (count > 5 && count + 2 < o->lanes && (count + 1) % 8 > 2)
            continue;
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++)
            for (size_t how = 0; how < ARRANGEMENT_COUNT; how++)
                for (page_side side = 0; side < SIDE_COUNT; side++) {
                    const struct arrangement *arrangement = &arrangements[how];
                    const size_t k = depths[d], offset = (d + how) % 4;
                    const size_t gap = gaps[(count + d + how) % (sizeof gaps / sizeof *gaps)];
                    const uint8_t flip = (count + d + how) % 2 ? 0x80 : 0;
                    const int with_sums = (count + d) % 3 != 0;
                    const enum byte_pattern pattern =
                        (count + how) % 4 ? BYTES_RANDOM : (count + d) % BYTE_PATTERN_COUNT;
                    if (begin_case(side, offset,
                                   "pack_%s count=%zu k=%zu (%s) gap=%zu flip=%02x sums=%d data=%s offset=%zu",
                                   o->name, count, k, arrangement->name, gap, flip, with_sums,
                                   byte_pattern_names[pattern], offset))
                        check_packing(o, arrangement, count, k, gap, pattern, flip, with_sums);
                }
    }
}

void check_gemm_packers(qk_gemm_s8_type *g)
{
    static operand a, b;
    set_operand_a(&a, g);
    set_operand_b(&b, g);
    check_packer(&a);
    check_packer(&b);
}
