/* gemm_s8 through its own packers, against a plain triple loop over the bytes that they took. It needs no oracle
 * kernel: a scalar row is checked like any other. */
#include "gemm_operand.h"

#include <string.h>

static operand a, b;
static buffer tile_buffer = {.name = "tile"}, expected_buffer = {.name = "expected tile"};
static uint32_t product[QK_MAX_MR * QK_MAX_NR];

/* Steps of k. */
typedef struct range {
    size_t first, steps;
} range;

static range random_range(size_t steps)
{
    const size_t first = random_below(steps + 1), left = steps - first;
    return (range){first, random_below(2) ? left : random_below(left + 1)};
}

/* The product of A [mr][k] and B [k][n], flipped, over a range of steps: rows nr apart, modulo 2**32. */
static void multiply(size_t n, size_t k, range part, uint8_t a_flip, uint8_t b_flip)
{
    const size_t first = part.first * a.kr, end = first + part.steps * a.kr < k ? first + part.steps * a.kr : k;
    memset(product, 0, sizeof product);
    for (size_t i = 0; i < a.lanes; i++)
        for (size_t p = first; p < end; p++) {
            const int32_t a_value = value_of(a.source.data[i * k + p] ^ a_flip, a.is_signed);
            for (size_t j = 0; j < n; j++)
                product[i * b.lanes + j] +=
                    (uint32_t)(a_value * value_of(b.source.data[p * n + j] ^ b_flip, b.is_signed));
        }
}

/* Run m rows and n columns over a range of steps, whose product is known. */
static void check_tile(qk_gemm_s8_type *g, size_t m, size_t n, range part, int accumulate)
{
    const size_t bytes = ((m - 1) * g->nr + n) * sizeof(int32_t);
    uint32_t *sums = place_aligned(&tile_buffer, bytes, 64);
    uint32_t *expected = place_expected(&expected_buffer, &tile_buffer);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            const size_t at = i * g->nr + j;
            sums[at] = (uint32_t)random_bits();
            expected[at] = (accumulate ? sums[at] : 0) + product[at];
        }
    qk_gemm_tile tile = tile_of(&a, &b, m, n);
    tile.first_step = (uint32_t)part.first;
    tile.k_steps = (uint32_t)part.steps;
    tile.accumulate = accumulate;
    tile.sums = (int32_t *)sums;
    g->run(&tile);
    expect_same(&tile_buffer, &expected_buffer, S32);
}

/* Every m and n: all steps, then a part of them; accumulating in one of the two. */
static void check_shape(qk_gemm_s8_type *g, size_t k, enum byte_pattern a_data, enum byte_pattern b_data,
                        uint8_t a_flip, uint8_t b_flip)
{
    const size_t steps = step_count(&a, k);
    for (size_t n = g->n_unit; n <= g->nr; n += g->n_unit) {
        fill_source(&a, g->mr, k, a_data);
        fill_source(&b, n, k, b_data);
        pack_source(&b, n, k, b_flip, 0);
        for (int in_part = 0; in_part < 2; in_part++) {
            const range part = in_part ? random_range(steps) : (range){0, steps};
            multiply(n, k, part, a_flip, b_flip);
            for (size_t m = 1; m <= g->mr; m++) {
                const size_t gap = 4 * random_below(20);
                const int accumulate = (int)((m + (size_t)in_part + (size_t)a_data) % 2);
                begin_variant("m=%zu n=%zu steps [%zu, %zu) accumulate=%d gap=%zu", m, n, part.first,
                              part.first + part.steps, accumulate, gap);
                pack_source(&a, m, k, a_flip, gap);
                check_tile(g, m, n, part, accumulate);
            }
        }
    }
}

static void check_shapes(qk_gemm_s8_type *g)
{
    static const size_t step_counts[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                         11, 12, 13, 15, 16, 17, 31, 32, 33, 64, 129, 260};
    const size_t variants = BYTE_PATTERN_COUNT * 4 * SIDE_COUNT;

    for (size_t s = 0; s < sizeof step_counts / sizeof *step_counts; s++)
        for (size_t variant = 0; variant < variants; variant++) {
            const page_side side = variant % SIDE_COUNT;
            const uint8_t a_flip = variant / 2 % 2 ? 0x80 : 0, b_flip = variant / 4 % 2 ? 0x80 : 0;
            const enum byte_pattern a_data = variant / 8;
            /* All pairs of patterns over the step counts; random meets random always. */
            const enum byte_pattern b_data =
                a_data == BYTES_RANDOM ? BYTES_RANDOM : (a_data + s) % BYTE_PATTERN_COUNT;
            const size_t short_by = step_counts[s] ? (s + variant / 8) % g->kr : 0;
            const size_t k = step_counts[s] * g->kr - short_by;
            if (begin_case(side, 0, "run k=%zu k_steps=%zu a: flip=%02x data=%s, b: flip=%02x data=%s", k,
                           step_counts[s], a_flip, byte_pattern_names[a_data], b_flip,
                           byte_pattern_names[b_data]))
                check_shape(g, k, a_data, b_data, a_flip, b_flip);
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
    for (size_t i = 0; i < g->mr * b.lanes; i++)
        product[i] = (uint32_t)sum;
    memset(place(&a.source, g->mr * k, 1), a_byte, g->mr * k);
    memset(place(&b.source, g->nr * k, 1), b_byte, g->nr * k);
    pack_source(&b, g->nr, k, 0, 0);
    for (size_t m = g->mr; m > 0; m /= 2)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            begin_variant("m=%zu accumulate=%d", m, accumulate);
            pack_source(&a, m, k, 0, 0);
            check_tile(g, m, g->nr, (range){0, step_count(&a, k)}, accumulate);
        }
}

static void check_descriptor(qk_gemm_s8_type *g, enum qk_isa isa)
{
    if (!begin_case(AT_START, 0, "descriptor"))
        return;
    if (g->mr < 1 || g->mr > QK_MAX_MR || g->nr < 1 || g->nr > QK_MAX_NR || g->n_unit < 1 ||
        g->nr % g->n_unit || g->n_unit % QK_STORE_COLUMNS || g->kr < 1 || (g->a_bytes != 1 && g->a_bytes != 2) ||
        g->a_by_rows > 1 || g->a_signed > 1 || g->b_signed > 1)
        fail("mr=%d nr=%d n_unit=%d kr=%d a_bytes=%d a_by_rows=%d a_signed=%d b_signed=%d: beyond the bounds of "
             "kernels.h", g->mr, g->nr, g->n_unit, g->kr, g->a_bytes, g->a_by_rows, g->a_signed, g->b_signed);
    const qk_b_layout own = qk_b_layout_of(g), listed = qk_b_layout_of_isa(isa);
    expect_equal("isa.def has this layout", memcmp(&own, &listed, sizeof own), 0);
    expect_equal("peak(1) multiplies and adds", g->peak(1) > 0, 1);
}

void check_gemm_s8(const kernel_row *row)
{
    qk_gemm_s8_type *g = row->kernel.gemm_s8;
    check_descriptor(g, row->isa);
    set_operand_a(&a, g);
    set_operand_b(&b, g);
    check_gemm_packers(g);
    check_shapes(g);
    check_wraparound(g);
    check_gemm_run_store(g);
}

double gemm_peak(qk_gemm_s8_type *g)
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
    fill_source(&a, g->mr, k, BYTES_RANDOM);
    fill_source(&b, g->nr, k, BYTES_RANDOM);
    pack_source(&a, g->mr, k, 0, 0);
    pack_source(&b, g->nr, k, 0, 0);
    qk_gemm_tile tile = tile_of(&a, &b, g->mr, g->nr);
    tile.prefetch = tile.b;
    tile.prefetch_stride = (size_t)g->nr * g->kr;
    tile.k_steps = (uint32_t)step_count(&a, k);
    tile.sums = place_aligned(&tile_buffer, (size_t)g->mr * g->nr * sizeof *tile.sums, 64);
    const double work = 2.0 * g->mr * g->nr * (double)k;
    stopwatch w = {0};
    while (keep_timing(&w))
        g->run(&tile);
    timing t = timing_of(&w, work, OPERATIONS);
    t.peak = gemm_peak(g);
    if (g->run_store[QK_OUT_F32]) {
        w = time_gemm_run_store(g, &tile);
        t.other = work / timing_of(&w, work, OPERATIONS).ns;
        t.other_name = "storing float32";
    }
    return t;
}
