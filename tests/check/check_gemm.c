/* gemm_s8 through its own packers, against a plain triple loop over the unpacked inputs. It needs no oracle kernel:
 * a scalar row is checked like any other. */
#include "gemm_operand.h"

#include <string.h>

static operand a, b;
static buffer tile_buffer = {.name = "tile"}, expected_buffer = {.name = "expected tile"};
static uint32_t product[QK_MAX_MR * QK_MAX_NR];

/* Pack `count` lanes of the source: rows of A [count][k], or columns of B [k][lanes]. */
static void pack_source(operand *o, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k,
                        int source_signed)
{
    place_panel(o, count, k);
    o->pack(o->source.data, stride, k_stride, count, k, flip_for(o, source_signed), o->panel.data,
            (int32_t *)o->sums.data);
    freeze(&o->panel);
}

static void pack_rows(size_t m, size_t k, int source_signed)
{
    pack_source(&a, (ptrdiff_t)k, 1, m, k, source_signed);
}

static void pack_columns(size_t k, int source_signed)
{
    pack_source(&b, 1, (ptrdiff_t)b.lanes, b.lanes, k, source_signed);
}

/* product of A [mr][k] and B [k][nr] modulo 2**32. */
static void multiply(size_t k, int a_signed, int b_signed)
{
    for (size_t i = 0; i < a.lanes; i++)
        for (size_t j = 0; j < b.lanes; j++) {
            int64_t sum = 0;
            for (size_t p = 0; p < k; p++)
                sum += (int64_t)value_of(a.source.data[i * k + p], a_signed) *
                       value_of(b.source.data[p * b.lanes + j], b_signed);
            product[i * b.lanes + j] = (uint32_t)sum;
        }
}

/* Run m rows and undo the packers' flips: with a = a' + da, b = b' + db, a' and b' being what was packed,
 *   sum ab = sum a'b' + da * sum b' + db * sum a' + k * da * db. */
static void check_tile(qk_gemm_s8_type *g, size_t m, size_t k, int a_signed, int b_signed)
{
    const uint32_t da = 128u * (uint32_t)(a.is_signed - a_signed);
    const uint32_t db = 128u * (uint32_t)(b.is_signed - b_signed);
    pack_rows(m, k, a_signed);
    uint32_t *tile = place_aligned(&tile_buffer, m * g->nr * sizeof *tile, 64);
    g->run(a.panel.data, b.panel.data, m, step_count(&a, k), (int32_t *)tile);

    const uint32_t *row_sums = (const uint32_t *)a.sums.data;
    const uint32_t *column_sums = (const uint32_t *)b.sums.data;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < g->nr; j++)
            tile[i * g->nr + j] += da * column_sums[j] + db * row_sums[i] + (uint32_t)k * da * db;
    memcpy(place_expected(&expected_buffer, &tile_buffer), product, tile_buffer.size);
    expect_same(&tile_buffer, &expected_buffer, S32);
}

static void check_shapes(qk_gemm_s8_type *g)
{
    static const size_t step_counts[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                         11, 12, 13, 15, 16, 17, 31, 32, 33, 64, 129, 260};
    const size_t variants = BYTE_PATTERN_COUNT * 4 * SIDE_COUNT;

    for (size_t s = 0; s < sizeof step_counts / sizeof *step_counts; s++)
        for (size_t variant = 0; variant < variants; variant++) {
            const page_side side = variant % SIDE_COUNT;
            const int a_signed = variant / 2 % 2, b_signed = variant / 4 % 2;
            const enum byte_pattern a_data = variant / 8;
            /* All pairs of patterns over the step counts; random meets random always. */
            const enum byte_pattern b_data =
                a_data == BYTES_RANDOM ? BYTES_RANDOM : (a_data + s) % BYTE_PATTERN_COUNT;
            const size_t short_by = step_counts[s] ? (s + variant / 8) % g->kr : 0;
            const size_t k = step_counts[s] * g->kr - short_by;
            if (!begin_case(side, 0, "run k=%zu k_steps=%zu a: signed=%d data=%s, b: signed=%d data=%s", k,
                            step_counts[s], a_signed, byte_pattern_names[a_data], b_signed,
                            byte_pattern_names[b_data]))
                continue;
            fill_bytes(place(&a.source, g->mr * k, 1), g->mr * k, a_data);
            fill_bytes(place(&b.source, g->nr * k, 1), g->nr * k, b_data);
            multiply(k, a_signed, b_signed);
            pack_columns(k, b_signed);
            for (size_t m = 1; m <= g->mr; m++) {
                begin_variant("m=%zu", m);
                check_tile(g, m, k, a_signed, b_signed);
            }
        }
}

/* Sums beyond 2**31, and with an unsigned side beyond 2**32: the tile wraps, it does not saturate. */
static void check_wraparound(qk_gemm_s8_type *g)
{
    const size_t k = 133003;
    const uint8_t a_byte = g->a_signed ? 0x80 : 0xff, b_byte = g->b_signed ? 0x80 : 0xff;
    const int64_t sum = (int64_t)k * value_of(a_byte, g->a_signed) * value_of(b_byte, g->b_signed);

    if (!begin_case(AT_START, 0, "run k=%zu a: data=%d, b: data=%d", k, a_byte, b_byte))
        return;
    for (size_t i = 0; i < a.lanes * b.lanes; i++)
        product[i] = (uint32_t)sum;
    memset(place(&a.source, g->mr * k, 1), a_byte, g->mr * k);
    memset(place(&b.source, g->nr * k, 1), b_byte, g->nr * k);
    pack_columns(k, g->b_signed);
    for (size_t m = g->mr; m > 0; m /= 2) {
        begin_variant("m=%zu", m);
        check_tile(g, m, k, g->a_signed, g->b_signed);
    }
}

static void check_descriptor(qk_gemm_s8_type *g)
{
    if (!begin_case(AT_START, 0, "descriptor"))
        return;
    if (g->mr < 1 || g->mr > QK_MAX_MR || g->nr < 1 || g->nr > QK_MAX_NR || g->nr % QK_STORE_COLUMNS ||
        g->kr < 1 || (g->a_bytes != 1 && g->a_bytes != 2) || g->a_signed > 1 || g->b_signed > 1)
        fail("mr=%d nr=%d kr=%d a_bytes=%d a_signed=%d b_signed=%d: beyond the bounds of kernels.h", g->mr,
             g->nr, g->kr, g->a_bytes, g->a_signed, g->b_signed);
    expect_equal("peak(1) multiplies and adds", g->peak(1) > 0, 1);
}

void check_gemm_s8(const kernel_row *row)
{
    qk_gemm_s8_type *g = row->kernel.gemm_s8;
    check_descriptor(g);
    set_operand_a(&a, g);
    set_operand_b(&b, g);
    check_gemm_packers(g);
    check_shapes(g);
    check_wraparound(g);
}

/* Operations a nanosecond of the kernel's own multiply instruction, on registers alone. */
static double measure_peak(qk_gemm_s8_type *g)
{
    uint64_t multiply_adds = 0;
    stopwatch w = {0};
    while (keep_timing(&w))
        multiply_adds = g->peak(1000);
    return 2.0 * (double)multiply_adds / timing_of(&w, 1, OPERATIONS).ns;
}

timing bench_gemm_s8(kernel_pointer kernel)
{
    const size_t k = 1024;
    qk_gemm_s8_type *g = kernel.gemm_s8;
    set_operand_a(&a, g);
    set_operand_b(&b, g);
    fill_bytes(place(&a.source, g->mr * k, 1), g->mr * k, BYTES_RANDOM);
    fill_bytes(place(&b.source, g->nr * k, 1), g->nr * k, BYTES_RANDOM);
    pack_rows(g->mr, k, g->a_signed);
    pack_columns(k, g->b_signed);
    int32_t *tile = place_aligned(&tile_buffer, (size_t)g->mr * g->nr * sizeof *tile, 64);
    stopwatch w = {0};
    while (keep_timing(&w))
        g->run(a.panel.data, b.panel.data, g->mr, step_count(&a, k), tile);
    timing t = timing_of(&w, 2.0 * g->mr * g->nr * (double)k, OPERATIONS);
    t.peak = measure_peak(g);
    return t;
}
