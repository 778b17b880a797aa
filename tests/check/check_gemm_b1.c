/* gemm_b1. The scalar kernel takes plain words of four columns, others perhaps running xors and more columns, so the
 * oracle of every row is the definition, on plain words that are packed here. */
#include "harness.h"

enum { MAX_WORDS = 300 };

static buffer a_buffer = {.name = "a"}, b_buffer = {.name = "b"}, out_buffer = {.name = "out"},
              expected_buffer = {.name = "expected out"};
static uint8_t a_bits[QK_MAX_MR * MAX_WORDS * 4], b_bits[QK_MAX_NR * MAX_WORDS * 4];

static uint32_t word_of(const uint8_t *bits, size_t w)
{
    return (uint32_t)bits[4 * w] | (uint32_t)bits[4 * w + 1] << 8 | (uint32_t)bits[4 * w + 2] << 16 |
           (uint32_t)bits[4 * w + 3] << 24;
}

/* Where word w of a lane lies is to[w * step]. */
static void pack_lane(qk_gemm_b1_type *g, const uint8_t *bits, size_t words, uint32_t *to, size_t step)
{
    uint32_t running = 0;
    for (size_t w = 0; w < words; w++) {
        running = g->running ? running ^ word_of(bits, w) : word_of(bits, w);
        to[w * step] = running;
    }
}

static int32_t plain_count(const uint8_t *a, const uint8_t *b, size_t words)
{
    int32_t ones = 0;
    for (size_t i = 0; i < 4 * words; i++)
        for (int bit = 0; bit < 8; bit++)
            ones += (a[i] ^ b[i]) >> bit & 1;
    return ones;
}

/* Place the operands of a tile of m rows, packed from the bits. */
static qk_b1_tile place_tile(qk_gemm_b1_type *g, size_t m, size_t words, size_t gap)
{
    qk_b1_tile tile = {.a_stride = words + gap, .words = words, .m = (uint32_t)m, .out_stride = g->nr + gap};
    uint32_t *a = place(&a_buffer, m * words + (m - 1) * gap, sizeof *a);
    uint32_t *b = place(&b_buffer, words * g->nr, sizeof *b);
    for (size_t i = 0; i < m; i++)
        pack_lane(g, a_bits + i * words * 4, words, a + i * tile.a_stride, 1);
    for (size_t j = 0; j < g->nr; j++)
        pack_lane(g, b_bits + j * words * 4, words, b + j, g->nr);
    freeze(&a_buffer);
    freeze(&b_buffer);
    tile.a = a;
    tile.b = b;
    return tile;
}

static void check_rows(qk_gemm_b1_type *g, size_t m, size_t words, size_t gap, int accumulate)
{
    qk_b1_tile tile = place_tile(g, m, words, gap);
    const size_t elements = (m - 1) * tile.out_stride + g->nr;
    int32_t *out = place(&out_buffer, elements, sizeof *out);
    int32_t *expected = place_expected(&expected_buffer, &out_buffer);
    for (size_t e = 0; e < elements; e++)
        out[e] = expected[e] = random_int(-1000000, 1000000);
    tile.out = out;
    tile.accumulate = accumulate;
    tile.start = random_int(-1000000, 1000000);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < g->nr; j++) {
            int32_t *to = expected + i * tile.out_stride + j;
            *to = (accumulate ? *to : tile.start) -
                  2 * plain_count(a_bits + i * words * 4, b_bits + j * words * 4, words);
        }
    g->run(&tile);
    expect_same(&out_buffer, &expected_buffer, S32);
}

void check_gemm_b1(const kernel_row *row)
{
    /* Around where bytes of counts are full: after 7 and 15 steps. */
    static const size_t word_counts[] = {0, 4, 8, 24, 28, 32, 52, 56, 60, 64, 116, 120, 124, MAX_WORDS};
    qk_gemm_b1_type *g = row->kernel.gemm_b1;
    if (begin_case(AT_START, 0, "descriptor") &&
        (g->mr < 1 || g->mr > QK_MAX_MR || g->nr < 1 || g->nr > QK_MAX_NR || g->running > 1))
        fail("mr=%d nr=%d running=%d: beyond the bounds of kernels.h", g->mr, g->nr, g->running);
    for (size_t s = 0; s < sizeof word_counts / sizeof *word_counts; s++)
        for (size_t variant = 0; variant < BYTE_PATTERN_COUNT * SIDE_COUNT; variant++) {
            const size_t words = word_counts[s], offset = variant % 3;
            const enum byte_pattern a_data = variant / SIDE_COUNT;
            const enum byte_pattern b_data =
                a_data == BYTES_RANDOM ? BYTES_RANDOM : (a_data + s) % BYTE_PATTERN_COUNT;
            if (!begin_case(variant % SIDE_COUNT, offset, "words=%zu a: data=%s, b: data=%s", words,
                            byte_pattern_names[a_data], byte_pattern_names[b_data]))
                continue;
            fill_bytes(a_bits, g->mr * words * 4, a_data);
            fill_bytes(b_bits, g->nr * words * 4, b_data);
            for (size_t m = 1; m <= g->mr; m++) {
                const size_t gap = random_below(5);
                const int accumulate = (int)((m + variant) % 2);
                begin_variant("m=%zu gap=%zu accumulate=%d", m, gap, accumulate);
                check_rows(g, m, words, gap, accumulate);
            }
        }
}

timing bench_gemm_b1(kernel_pointer kernel)
{
    enum { WORDS = 32 };
    qk_gemm_b1_type *g = kernel.gemm_b1;
    fill_bytes(a_bits, g->mr * WORDS * 4, BYTES_RANDOM);
    fill_bytes(b_bits, g->nr * WORDS * 4, BYTES_RANDOM);
    qk_b1_tile tile = place_tile(g, g->mr, WORDS, 0);
    tile.out = place(&out_buffer, (size_t)g->mr * g->nr, sizeof *tile.out);
    stopwatch w = {0};
    while (keep_timing(&w))
        g->run(&tile);
    return timing_of(&w, 2.0 * g->mr * g->nr * WORDS * 32, OPERATIONS);
}
