/* pack and unpack of 1, 2 and 4-bit fields. */
#include "harness.h"

static buffer q_buffer = {.name = "q"}, p_buffer = {.name = "p"}, expected_buffer = {.name = "expected"};

/* ------------------------------------------------------------------------------- plain definitions */

/* What field number `place` of a byte counts. */
static unsigned weight(size_t place, unsigned bits, int high_first)
{
    const size_t fields = 8 / bits;
    unsigned w = 1;
    for (size_t position = high_first ? fields - 1 - place : place; position > 0; position--)
        w *= 1u << bits;
    return w;
}

static uint8_t plain_pack(const uint8_t *q, size_t n, uint8_t bias, int high_first, uint8_t *p,
                          unsigned bits)
{
    const size_t fields = 8 / bits;
    unsigned seen = 0;
    for (size_t i = 0; i < n; i++)
        seen |= (unsigned)(q[i] + bias) % 256;
    for (size_t byte = 0; byte < (n + fields - 1) / fields; byte++) {
        unsigned sum = 0;
        for (size_t place = 0; place < fields && byte * fields + place < n; place++)
            sum += q[byte * fields + place] % (1u << bits) * weight(place, bits, high_first);
        p[byte] = (uint8_t)sum;
    }
    return (uint8_t)seen;
}

static void plain_unpack(const uint8_t *p, size_t n, int is_signed, int high_first, uint8_t *q,
                         unsigned bits)
{
    const size_t fields = 8 / bits;
    for (size_t i = 0; i < n; i++) {
        int value = (int)(p[i / fields] / weight(i % fields, bits, high_first) % (1u << bits));
        if (is_signed && value >= 1 << (bits - 1))
            value -= 1 << bits;
        q[i] = (uint8_t)value;
    }
}

/* ------------------------------------------------------------------------------------------- checks */

enum value_range { IN_RANGE, ONE_OUTSIDE, ANY_BYTES, VALUE_RANGE_COUNT };
static const char *const value_range_names[] = {"in range", "one outside", "any bytes"};

static const uint8_t *place_values(size_t n, unsigned bits, uint8_t bias, enum byte_pattern pattern,
                                   enum value_range range)
{
    uint8_t *q = fill_bytes(place(&q_buffer, n, 1), n, pattern);
    for (size_t i = 0; range != ANY_BYTES && i < n; i++)
        q[i] = (uint8_t)(q[i] % (1u << bits) - bias);
    if (range == ONE_OUTSIDE && n > 0)
        q[random_place(n)] = (uint8_t)random_bits();
    freeze(&q_buffer);
    return q;
}

static void check_pack(qk_pack_type *kernel, qk_pack_type *oracle, unsigned bits)
{
    for (size_t s = 0; s < size_count; s++)
        for (size_t variant = 0; variant < BYTE_PATTERN_COUNT * VALUE_RANGE_COUNT * 16; variant++) {
            const size_t n = sizes[s], offset = variant / 2 % 4;
            const page_side side = variant % SIDE_COUNT;
            const int high_first = variant / 8 % 2;
            const enum value_range range = variant / 16 % VALUE_RANGE_COUNT;
            const enum byte_pattern pattern = variant / 16 / VALUE_RANGE_COUNT;
            const uint8_t bias = (uint8_t)((s + offset + pattern) % 2 ? 1u << (bits - 1) : 0);
            if (!begin_case(side, offset, "n=%zu bias=%d high_first=%d data=%s, %s offset=%zu", n, bias,
                            high_first, byte_pattern_names[pattern], value_range_names[range], offset))
                continue;
            const uint8_t *q = place_values(n, bits, bias, pattern, range);
            uint8_t *p = place(&p_buffer, (n * bits + 7) / 8, 1);
            uint8_t *expected = place_expected(&expected_buffer, &p_buffer);
            const uint8_t seen = oracle(q, n, bias, high_first, expected);
            expect_equal("values seen", kernel(q, n, bias, high_first, p), seen);
            expect_same(&p_buffer, &expected_buffer, U8);
        }
}

static void check_unpack(qk_unpack_type *kernel, qk_unpack_type *oracle, unsigned bits)
{
    for (size_t s = 0; s < size_count; s++)
        for (size_t variant = 0; variant < BYTE_PATTERN_COUNT * 32; variant++) {
            const size_t n = sizes[s], offset = variant / 2 % 4, bytes = (n * bits + 7) / 8;
            const page_side side = variant % SIDE_COUNT;
            const int high_first = variant / 8 % 2, is_signed = variant / 16 % 2;
            const enum byte_pattern pattern = variant / 32;
            if (!begin_case(side, offset, "n=%zu is_signed=%d high_first=%d data=%s offset=%zu", n,
                            is_signed, high_first, byte_pattern_names[pattern], offset))
                continue;
            const uint8_t *p = fill_bytes(place(&p_buffer, bytes, 1), bytes, pattern);
            freeze(&p_buffer);
            uint8_t *q = place(&q_buffer, n, 1);
            uint8_t *expected = place_expected(&expected_buffer, &q_buffer);
            oracle(p, n, is_signed, high_first, expected);
            kernel(p, n, is_signed, high_first, q);
            expect_same(&q_buffer, &expected_buffer, U8);
        }
}

/* ------------------------------------------------------------------------------------------- timing */

enum { BENCH_N = 4096 };
static uint8_t bench_q[BENCH_N], bench_p[BENCH_N];

static timing bench_pack(qk_pack_type *kernel)
{
    stopwatch w = {0};
    fill_bytes(bench_q, BENCH_N, BYTES_RANDOM);
    while (keep_timing(&w))
        kernel(bench_q, BENCH_N, 0, 0, bench_p);
    return timing_of(&w, BENCH_N, ELEMENTS);
}

static timing bench_unpack(qk_unpack_type *kernel)
{
    stopwatch w = {0};
    fill_bytes(bench_p, BENCH_N, BYTES_RANDOM);
    while (keep_timing(&w))
        kernel(bench_p, BENCH_N, 1, 0, bench_q);
    return timing_of(&w, BENCH_N, ELEMENTS);
}

/* -------------------------------------------------------------------------------------------- slots */

#define DEFINE_CHECKS(bits)                                                                        \
    static uint8_t plain_pack_u##bits(const uint8_t *q, size_t n, uint8_t bias, int high_first,    \
                                      uint8_t *p)                                                  \
    {                                                                                              \
        return plain_pack(q, n, bias, high_first, p, bits);                                        \
    }                                                                                              \
    static void plain_unpack_u##bits(const uint8_t *p, size_t n, int is_signed, int high_first,    \
                                     uint8_t *q)                                                   \
    {                                                                                              \
        plain_unpack(p, n, is_signed, high_first, q, bits);                                        \
    }                                                                                              \
    void check_pack_u##bits(const kernel_row *row)                                                 \
    {                                                                                              \
        check_pack(row->kernel.pack_u##bits, ORACLE(row, pack_u##bits, plain_pack_u##bits), bits); \
    }                                                                                              \
    void check_unpack_u##bits(const kernel_row *row)                                               \
    {                                                                                              \
        check_unpack(row->kernel.unpack_u##bits,                                                   \
                     ORACLE(row, unpack_u##bits, plain_unpack_u##bits), bits);                     \
    }                                                                                              \
    timing bench_pack_u##bits(kernel_pointer kernel)                                               \
    {                                                                                              \
        return bench_pack(kernel.pack_u##bits);                                                    \
    }                                                                                              \
    timing bench_unpack_u##bits(kernel_pointer kernel)                                             \
    {                                                                                              \
        return bench_unpack(kernel.unpack_u##bits);                                                \
    }

DEFINE_CHECKS(1)
DEFINE_CHECKS(2)
DEFINE_CHECKS(4)
