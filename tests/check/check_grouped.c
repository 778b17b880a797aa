/* gemm_grouped on records of its own layout, against the formula of kernels.h in plain C. It needs no oracle
 * kernel: a scalar row is checked like any other. */
#include "gemm_operand.h"
#include "grouped_weight.h"

#include <math.h>

static grouped_weight weight = {.levels = {.name = "levels"}, .packed = {.name = "packed records"}, .plain = {.name = "plain records"}};
static buffer a_buffer = {.name = "A"}, terms_buffer = {.name = "terms"},
              a_scales_buffer = {.name = "scales of A"}, decoded_buffer = {.name = "decoded records"},
              sums_buffer = {.name = "sums"}, expected_sums = {.name = "expected sums"};

enum { MOST_PANELS = 2 };
static float start_sums[MOST_PANELS][QK_MAX_MR * QK_MAX_NR]; /* rows nr apart */
static float product[MOST_PANELS][QK_MAX_MR * QK_MAX_NR];

/* ---------------------------------------------------------------------------------------------- a product */

static size_t most_rows(qk_gemm_grouped_type *g, int codes)
{
    return g->mr[codes] > g->few[codes] ? g->mr[codes] : g->few[codes];
}

/* As many rows of A as a tile can have, each in [-127, 127], with terms and scales. Nothing lies behind the last
 * row's last block. */
static void make_rows(qk_grouped_tile *tile, enum byte_pattern pattern, int scaled)
{
    const size_t m = most_rows(weight.gemm, weight.shape.codes);
    const size_t blocks = weight.shape.blocks, block = weight.shape.block;
    const size_t k = blocks * block;
    tile->m = (uint32_t)m;
    tile->a_stride = (k + 63) / 64 * 64 + 64 * random_below(3);
    tile->row_blocks = blocks + random_below(3);
    const size_t bytes = (m - 1) * tile->a_stride + k, row_values = (m - 1) * tile->row_blocks + blocks;

    int8_t *a = (int8_t *)fill_bytes(place(&a_buffer, bytes, 1), bytes, pattern);
    for (size_t i = 0; i < bytes; i++)
        a[i] = a[i] == -128 ? -127 : a[i];
    int32_t *terms = place(&terms_buffer, row_values, sizeof *terms);
    float *scales = place(&a_scales_buffer, row_values, sizeof *scales);
    for (size_t i = 0; i < m; i++)
        for (size_t b = 0; b < blocks; b++) {
            int32_t sum = 0;
            for (size_t p = 0; p < block; p++)
                sum += a[i * tile->a_stride + b * block + p];
            const int32_t zero = weight.shape.has_zero_points ? 1 : stored_zero(&weight, weight.zeros[0]);
            terms[i * tile->row_blocks + b] = -zero * sum;
            scales[i * tile->row_blocks + b] = random_scale();
        }
    freeze(&a_buffer);
    freeze(&terms_buffer);
    freeze(&a_scales_buffer);
    tile->a = a;
    tile->terms = terms;
    tile->a_scales = scaled ? scales : NULL;
}

static float plain_sum(const qk_grouped_tile *tile, size_t panel, size_t i, size_t j, float sum)
{
    const size_t block = weight.shape.block;
    for (size_t b = 0; b < tile->blocks; b++) {
        const size_t column = (panel * tile->blocks + b) * weight.gemm->nr + j;
        const int8_t *a = tile->a + i * tile->a_stride + b * block;
        const uint8_t *codes = weight.codes + column * block;
        const int32_t zero = weight.zeros[column];
        int32_t acc = 0;
        for (size_t k = 0; k < block; k++)
            acc += a[k] * (codes[k] - zero);
        float value = (float)acc;
        if (tile->a_scales)
            value *= tile->a_scales[i * tile->row_blocks + b];
        sum = fmaf(value, weight.scales[column], sum);
    }
    return sum;
}

static void multiply(const qk_grouped_tile *tile)
{
    const size_t nr = weight.gemm->nr;
    for (size_t panel = 0; panel < tile->panels; panel++)
        for (size_t i = 0; i < tile->m; i++)
            for (size_t j = 0; j < nr; j++) {
                const size_t at = i * nr + j;
                start_sums[panel][at] = random_float(-1000, 1000);
                product[panel][at] = plain_sum(tile, panel, i, j, tile->accumulate ? start_sums[panel][at] : 0);
            }
}

/* -------------------------------------------------------------------------------------------------- checks */

/* The last m of the rows in `all`: what follows them is not to be touched. */
static void check_tile(void (*run)(const qk_grouped_tile *tile), const qk_grouped_tile *all, size_t m)
{
    const size_t nr = weight.gemm->nr, first = all->m - m;
    qk_grouped_tile tile = *all;
    tile.m = (uint32_t)m;
    tile.a += first * tile.a_stride;
    tile.terms += first * tile.row_blocks;
    if (tile.a_scales)
        tile.a_scales += first * tile.row_blocks;
    tile.sums = place_aligned(&sums_buffer, tile.panels * m * nr * sizeof *tile.sums, 64);
    float *expected = place_expected(&expected_sums, &sums_buffer);
    for (size_t panel = 0; panel < tile.panels; panel++)
        for (size_t i = 0; i < m * nr; i++) {
            tile.sums[panel * m * nr + i] = start_sums[panel][first * nr + i];
            expected[panel * m * nr + i] = product[panel][first * nr + i];
        }
    run(&tile);
    expect_same(&sums_buffer, &expected_sums, F32);
}

static void check_decode(void)
{
    begin_variant("decode");
    uint8_t *decoded = place_aligned(&decoded_buffer, weight.plain.size, 64);
    weight.gemm->decode[weight.shape.codes](weight.packed.data, &weight.records, weight.levels.data, weight.shape.blocks,
                                            decoded);
    expect_same(&decoded_buffer, &weight.plain, U8);
}

static void check_shape(qk_gemm_grouped_type *g, weight_shape shape, enum byte_pattern a_data,
                        enum byte_pattern code_data)
{
    const int scaled = (int)random_below(2);
    make_weight(&weight, g, shape, code_data);
    check_decode();
    /* The halves of a panel serve as two. */
    const size_t panels = shape.blocks && shape.blocks % MOST_PANELS == 0 && random_below(2) ? MOST_PANELS : 1;
    qk_grouped_tile tile = {
        .blocks = (uint32_t)(shape.blocks / panels),
        .panels = (uint32_t)panels,
        .records = &weight.records,
        .levels = weight.levels.data,
        .accumulate = (int)random_below(2),
    };
    make_rows(&tile, a_data, scaled);
    multiply(&tile);
    for (int packed = 0; packed < 2; packed++)
        for (size_t m = 1; m <= (packed ? shape.row_tables ? 0 : g->few[shape.codes] : g->mr[shape.codes]); m++) {
            begin_variant("%s m=%zu panels=%zu a_stride=%zu row_blocks=%zu a_scales=%d accumulate=%d",
                          packed ? "run_packed" : "run", m, panels, tile.a_stride, tile.row_blocks, scaled,
                          tile.accumulate);
            tile.b = packed ? weight.packed.data : weight.plain.data;
            tile.panel_bytes = tile.blocks * (packed ? weight.records.bytes : qk_plain_bytes(&weight.records, g->nr));
            check_tile(packed ? g->run_packed[shape.codes] : g->run[shape.codes], &tile, m);
        }
}

static void check_shapes(qk_gemm_grouped_type *g)
{
    /* 4 and 8: where nr is 16 or 8, so many records end at a multiple of 64 bytes, and so at a guard page. */
    static const size_t blocks[] = {32, 64, 96, 128, 256}, block_counts[] = {0, 1, 2, 3, 4, 7, 8, MAX_BLOCKS};
    const size_t variants = SIDE_COUNT * QK_CODES_COUNT * 2 * 2 * BYTE_PATTERN_COUNT;

    for (size_t s = 0; s < sizeof blocks / sizeof *blocks * (sizeof block_counts / sizeof *block_counts); s++)
        for (size_t variant = 0; variant < variants; variant++) {
            const page_side side = variant % SIDE_COUNT;
            const size_t form = variant / SIDE_COUNT % (QK_CODES_COUNT * 4);
            const qk_codes codes = form / 4;
            const int is_spaced = codes <= QK_CODES_U2;
            if (!is_spaced && (s + variant / SIDE_COUNT) % 9) /* they differ in little but their decoding */
                continue;
            const weight_shape shape = {
                .codes = codes,
                .block = blocks[s % (sizeof blocks / sizeof *blocks)],
                .blocks = block_counts[s / (sizeof blocks / sizeof *blocks)],
                .scale_bytes = form & 1 ? 4 : 2,
                .has_zero_points = is_spaced && form & 2,
                .row_tables = codes == QK_CODES_TABLE && form & 2,
                .window = codes >= QK_CODES_FINE2 ? (uint8_t)(12 + (s + form) % 5) : 0,
            };
            /* All pairs of patterns over the shapes; random meets random always. The others take turns: every form meets
             * each of them, on both sides. */
            const enum byte_pattern a_data = variant / SIDE_COUNT / (QK_CODES_COUNT * 4);
            if (!options.all && a_data != BYTES_RANDOM && a_data != (s + form + 3 * side) % BYTES_RANDOM)
                continue;
            const enum byte_pattern code_data =
                a_data == BYTES_RANDOM ? BYTES_RANDOM : (a_data + s) % BYTE_PATTERN_COUNT;
            if (begin_case(side, 0, "coding %d, window %d, %zu blocks of %zu, float%d scales%s a: data=%s codes: data=%s",
                           codes, shape.window, shape.blocks, shape.block, 8 * shape.scale_bytes,
                           shape.has_zero_points ? " and zero points," : shape.row_tables ? ", tables by row," : ",",
                           byte_pattern_names[a_data], byte_pattern_names[code_data]))
                check_shape(g, shape, a_data, code_data);
        }
}

static void check_descriptor(qk_gemm_grouped_type *g, enum qk_isa isa)
{
    if (!begin_case(AT_START, 0, "descriptor"))
        return;
    /* A line of the narrowest codes must not reach beyond the smallest block. */
    if (g->nr < 1 || g->nr > QK_MAX_NR || g->kr < 1 || 32 % (4 * g->kr) || g->bytes_signed > 1)
        fail("nr=%d kr=%d bytes_signed=%d: beyond the bounds of kernels.h", g->nr, g->kr, g->bytes_signed);
    const qk_weight_layout own = qk_layout_of(g), listed = qk_weight_layout_of_isa(isa);
    expect_equal("isa.def has this layout", memcmp(&own, &listed, sizeof own), 0);
    for (int codes = 0; codes < QK_CODES_COUNT; codes++) {
        expect_equal("all functions are there", g->run[codes] && g->decode[codes], 1);
        expect_equal("run_packed is there where it takes rows", g->run_packed[codes] != NULL, g->few[codes] > 0);
        expect_equal("rows are within bounds", g->mr[codes] >= 1 && most_rows(g, codes) <= QK_MAX_MR, 1);
    }
}

void check_gemm_grouped(const kernel_row *row)
{
    check_descriptor(row->kernel.gemm_grouped, row->isa);
    check_shapes(row->kernel.gemm_grouped);
}

/* -------------------------------------------------------------------------------------------------- timing */

/* A nanosecond's operations on m rows in the cache. */
static timing time_rows(void (*run)(const qk_grouped_tile *tile), qk_grouped_tile *tile, size_t m)
{
    const size_t nr = weight.gemm->nr;
    tile->m = (uint32_t)m;
    tile->sums = place_aligned(&sums_buffer, m * nr * sizeof *tile->sums, 64);
    stopwatch w = {0};
    while (keep_timing(&w))
        run(tile);
    return timing_of(&w, 2.0 * (double)(m * nr * weight.shape.blocks * weight.shape.block), OPERATIONS);
}

/* Codes of 4 bits, decoded before for many rows and meanwhile for one. */
timing bench_gemm_grouped(kernel_pointer kernel)
{
    qk_gemm_grouped_type *g = kernel.gemm_grouped;
    make_weight(&weight, g, (weight_shape){.codes = QK_CODES_U4, .block = 32, .blocks = MAX_BLOCKS, .scale_bytes = 2}, BYTES_RANDOM);
    qk_grouped_tile tile = {.blocks = MAX_BLOCKS, .panels = 1, .records = &weight.records};
    make_rows(&tile, BYTES_RANDOM, 0);
    tile.b = weight.packed.data;
    const timing one_row = time_rows(g->run_packed[QK_CODES_U4], &tile, 1);
    tile.b = weight.plain.data;
    timing t = time_rows(g->run[QK_CODES_U4], &tile, g->mr[QK_CODES_U4]);
    t.peak = gemm_peak(row_of(QK_SLOT_gemm_s8, timed_isa())->kernel.gemm_s8);
    t.other = one_row.work / one_row.ns;
    t.other_name = "one row of packed records";
    return t;
}
