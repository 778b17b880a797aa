/* acc[m][n] += a[m][k] * b[k][n] by broadcasting A, once for all x86 ISAs. A kernel file includes its vocabulary,
 * defines
 *
 *      MR, NV                      the tile: rows, and vectors of LANES columns
 *      KR, A_BYTES, A_SIGNED       its groups along k, and the packed elements of A
 *      PEAK_SUMS                   independent sums that keep all multipliers busy
 *      load_b(b)                   the groups of LANES columns
 *      multiply_add(acc, a, b)     acc + the products of 32 bits of A, in every lane, with such a vector
 *
 * includes this file, and lists its tiles.
 *
 * Layout, A_BYTES * KR = 4:
 *
 *      panel of A, row after row:   k 0..3 | k 4..7 | ...         one 32-bit broadcast a row and step
 *                                   (a_stride later) the next row
 *      panel of B:                  k 0..3 of column 0 | k 0..3 of column 1 | ...       n / LANES vectors a step
 *                                   k 4..7 of column 0 | ...
 *
 * Rows stay apart, so that packing A is a copy. A few rows leave multipliers idle while a sum waits for its last
 * addition: `chains` independent sums fill them.
 * Memory: with five rows or more B comes from the L1 or L2 cache, where an earlier tile or `prefetch` has brought
 * it, and the lines of the output are asked for a line a step: together they would fill the line buffers, and the
 * loads from A would have to wait for them. With fewer rows reading B is the work, in several streams, AHEAD bytes
 * ahead.
 * Tails: tiles of every height and width; k by the packers' zeros.
 */
#ifndef QK_GEMM_BROADCAST_BODY_H
#define QK_GEMM_BROADCAST_BODY_H

#include <string.h>

#include "kernels.h"
#include "kernels/pack_panel.h"
#include "kernels/store_body.h"
#include "kernels/unroll.h"

enum {
    NR = NV * LANES,
    B_VECTOR = LANES * KR, /* bytes */
    STEP_OF_A = KR * A_BYTES,
    LINE = 64,
    AHEAD = 4096,
    LINES_AHEAD = 32
};

/* The sums of a tile: chain c, row i and vector j at [(c * m + i) * v + j], as far as the unrolled loops are
 * written. */
typedef vi sums_of_tile[32];

/* What becomes of a tile's sums: they go to tile->sums, or with the arguments of run_store to the output. */
typedef struct destination {
    int output; /* a qk_output, or SUMS */
    const qk_store_args *args;
    size_t column;
    const qk_store_rows *rows;
    void *out;
    size_t out_row_bytes;
} destination;

enum { SUMS = -1 };

/* ------------------------------------------------------------------------------------------------- multiply */

/* One step: add the products of m rows and v vectors. */
QK_INLINE void add_step(vi *acc, const uint8_t *a, size_t a_stride, const uint8_t *b, const size_t m, const size_t v)
{
    vi b_vector[4];
    QK_UNROLL4(j, v, {
        b_vector[j] = load_b(b + j * B_VECTOR);
        if (m > 1 && m < 4)
            QK_OPAQUE(b_vector[j]); /* or gcc would load it for each row anew */
    })
    QK_UNROLL8(i, m, {
        int32_t group;
        memcpy(&group, a + i * a_stride, sizeof group);
        vi a_broadcast = vi_set1(group);
        QK_UNROLL4(j, v, acc[i * v + j] = multiply_add(acc[i * v + j], a_broadcast, b_vector[j]);)
    })
}

/* The compiler would begin a later loop's work in an earlier one, and copy every sum once a step for it. */
QK_INLINE void keep_apart(vi *acc, const size_t count) { QK_UNROLL32(x, count, QK_OPAQUE(acc[x]);) }

/* Where a tile is: the next step of each operand, and what to prefetch with it. */
typedef struct position {
    const uint8_t *a, *b;
    uintptr_t prefetch; /* an integer: it may leave its object, and wrap, as a pointer must not */
    size_t a_stride, prefetch_stride;
} position;

QK_INLINE void advance(position *at, size_t steps, const size_t v)
{
    at->a += steps * STEP_OF_A;
    at->b += steps * v * B_VECTOR;
    at->prefetch += steps * at->prefetch_stride;
}

/* `streams` times `steps` steps: as many stretches of k that follow each other, walked abreast, because the hardware
 * fetches several streams from memory faster than one. Their sums go to the chains in turns. */
QK_INLINE void add_steps(vi *acc, position *at, const size_t steps, const size_t m, const size_t v, const size_t chains,
                         const size_t streams)
{
    const size_t a_far = steps * STEP_OF_A, b_far = steps * v * B_VECTOR;
    for (size_t left = steps; left > 0; left--) {
        QK_UNROLL4(s, streams, {
            const uint8_t *a = at->a + s * a_far, *b = at->b + s * b_far;
            if (streams == 1) {
                __builtin_prefetch((const void *)at->prefetch, 0, 2);
            } else { /* few products for each byte of B: every line is wanted early */
                QK_UNROLL4(line, (v * B_VECTOR + LINE - 1) / LINE, {
                    __builtin_prefetch((const void *)((uintptr_t)b + AHEAD + line * LINE), 0, 3);
                })
            }
            add_step(acc + s % chains * m * v, a, at->a_stride, b, m, v);
            if (streams > 1)
                keep_apart(acc, chains * m * v);
        })
        advance(at, 1, v);
    }
    advance(at, (streams - 1) * steps, v);
    keep_apart(acc, chains * m * v);
}

/* The first steps of a tile, with each a line of its m rows of output, out_lines a row; how many steps these were. */
QK_INLINE size_t add_first_steps(vi *acc, position *at, const destination *to, size_t steps, const size_t m,
                                 const size_t v, const size_t out_lines)
{
    const size_t first = m * out_lines < steps ? m * out_lines : steps;
    uintptr_t line = (uintptr_t)to->out;
    size_t left_in_row = out_lines;
    for (size_t left = first; left > 0; left--) {
        __builtin_prefetch((const void *)line, 1);
        line += LINE;
        if (--left_in_row == 0) {
            left_in_row = out_lines;
            line += to->out_row_bytes - out_lines * LINE;
        }
        add_step(acc, at->a, at->a_stride, at->b, m, v);
        at->a += STEP_OF_A;
        at->b += v * B_VECTOR;
    }
    keep_apart(acc, m * v);
    return first;
}

/* All the sums of a tile, in its first chain. */
QK_INLINE void multiply(vi *acc, const qk_gemm_tile *tile, const destination *to, const size_t m, const size_t v,
                        const size_t chains)
{
    const size_t streams = m < 4 ? 4 : m == 4 ? 3 : chains; /* four rows have no registers for a fourth address */
    position at = {tile->a, tile->b, (uintptr_t)tile->prefetch, tile->a_stride, 0};
    advance(&at, tile->first_step, v);
    at.prefetch_stride = tile->prefetch_stride;

    QK_UNROLL32(x, chains * m * v, acc[x] = vi_set1(0);)
    if (tile->accumulate) {
        QK_UNROLL32(x, m * v, acc[x] = vi_load(tile->sums + x / v * NR + x % v * LANES);)
    }
    size_t steps = tile->k_steps;
    if (streams == 1 && to->output != SUMS)
        steps -= to->output == QK_OUT_Q8 ? add_first_steps(acc, &at, to, steps, m, v, 1)
                                         : add_first_steps(acc, &at, to, steps, m, v, v * LANES * 4 / LINE);
    add_steps(acc, &at, steps / streams, m, v, chains, streams);
    if (streams > 1)
        add_steps(acc, &at, steps % streams, m, v, 1, 1);
    QK_UNROLL32(x, chains * m * v, {
        if (x >= m * v)
            acc[x % (m * v)] = vi_add(acc[x % (m * v)], acc[x]);
    })
}

/* ---------------------------------------------------------------------------------------------------- tiles */

/* For row i, vector j, column c and element type of the output: put, from acc to dst. */
#define QK_STORE_SUMS(out_type, put)                                                                         \
    QK_UNROLL8(i, m, {                                                                                       \
        const float row_scale = to->rows->row_scales ? to->rows->row_scales[i] : 1.0f;                       \
        QK_UNROLL4(j, v, {                                                                                   \
            const size_t c = to->column + j * LANES;                                                         \
            out_type *dst = (out_type *)((char *)to->out + i * to->out_row_bytes) + j * LANES;               \
            vi acc = vi_add(sums[i * v + j], vi_load(args->column_term + c));                                \
            put;                                                                                             \
        })                                                                                                   \
        (void)row_scale;                                                                                     \
    })

QK_INLINE void run_tile(const qk_gemm_tile *tile, const destination *to, const size_t m, const size_t v,
                        const size_t chains)
{
    const qk_store_args *args = to->args;
    sums_of_tile sums;
    multiply(sums, tile, to, m, v, chains);
    switch (to->output) {
    case QK_OUT_S32: QK_STORE_SUMS(int32_t, vi_store(dst, acc)) break;
    case QK_OUT_F32: QK_STORE_SUMS(float, vf_store(dst, scaled(acc, row_scale, c, args))) break;
    case QK_OUT_Q8: QK_STORE_SUMS(uint8_t, vi_store_bytes(dst, quantized(acc, row_scale, c, args))) break;
    default: QK_UNROLL32(x, m * v, vi_store(tile->sums + x / v * NR + x % v * LANES, sums[x]);)
    }
}

/* -------------------------------------------------------------------------------------------------- packing */

/* Copy a row of k values, as pack_a does; its sum modulo 2**32. */
static inline uint32_t copy_row(const uint8_t *src, ptrdiff_t k_stride, size_t k, uint8_t flip, void *row)
{
    uint32_t sum = 0;
    for (size_t p = 0; p < k; p++) {
        const uint8_t byte = src[(ptrdiff_t)p * k_stride] ^ flip;
        const int32_t value = byte_value(byte, A_SIGNED);
        if (A_BYTES == 2)
            ((int16_t *)row)[p] = (int16_t)value;
        else
            ((uint8_t *)row)[p] = byte;
        sum += (uint32_t)value;
    }
    return sum;
}

static void pack_a(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, size_t a_stride, int32_t *sums)
{
    const size_t bytes = (k + KR - 1) / KR * STEP_OF_A;
    for (size_t i = 0; i < count; i++, src += stride) {
        uint8_t *row = (uint8_t *)panel + i * a_stride;
        memset(row + k * A_BYTES, 0, bytes - k * A_BYTES);
        uint32_t sum = k_stride == 1 ? copy_row(src, 1, k, flip, row) : copy_row(src, k_stride, k, flip, row);
        if (sums)
            sums[i] = (int32_t)sum;
    }
}

/* KR lines of k, 16 columns each, to the groups of 16 columns; and the groups' sums to sums[0..16).
 *
 *      line 0   a0 a1 a2 a3 ...        a0 b0 a1 b1 ...        a0 b0 c0 d0 | a1 b1 c1 d1 | ...
 *      line 1   b0 b1 b2 b3 ...        c0 d0 c1 d1 ...
 */
static inline void interleave_lines(const uint8_t *src, ptrdiff_t k_stride, __m128i flip, uint8_t *groups,
                                    int32_t *sums)
{
    __m128i line[KR], group[KR];
    for (int i = 0; i < KR; i++)
        line[i] = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(src + i * k_stride)), flip);
    __m128i low01 = _mm_unpacklo_epi8(line[0], line[1]), high01 = _mm_unpackhi_epi8(line[0], line[1]);
    if (KR == 2) {
        group[0] = low01;
        group[1] = high01;
    } else {
        __m128i low23 = _mm_unpacklo_epi8(line[KR - 2], line[KR - 1]);
        __m128i high23 = _mm_unpackhi_epi8(line[KR - 2], line[KR - 1]);
        group[0] = _mm_unpacklo_epi16(low01, low23);
        group[1] = _mm_unpackhi_epi16(low01, low23);
        group[KR - 2] = _mm_unpacklo_epi16(high01, high23);
        group[KR - 1] = _mm_unpackhi_epi16(high01, high23);
    }
    for (int i = 0; i < KR; i++) {
        _mm_store_si128((__m128i *)groups + i, group[i]);
        __m128i pairs_s16x8 = _mm_maddubs_epi16(_mm_set1_epi8(1), group[i]), *sum = (__m128i *)sums + i * 4 / KR;
        if (KR == 2) { /* a pair is a column */
            _mm_storeu_si128(sum, _mm_add_epi32(_mm_loadu_si128(sum), _mm_cvtepi16_epi32(pairs_s16x8)));
            pairs_s16x8 = _mm_cvtepi16_epi32(_mm_srli_si128(pairs_s16x8, 8));
            sum++;
        } else {
            pairs_s16x8 = _mm_madd_epi16(pairs_s16x8, _mm_set1_epi16(1));
        }
        _mm_storeu_si128(sum, _mm_add_epi32(_mm_loadu_si128(sum), pairs_s16x8));
    }
}

static void pack_b(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, int32_t *sums)
{
    const size_t width = (count + N_UNIT - 1) / N_UNIT * N_UNIT;
    if (stride != 1 || count % 16 || k % KR || !sums) {
        pack_panel(src, stride, k_stride, count, width, k, KR, flip, 1, panel, sums);
        return;
    }
    const __m128i flip_u8x16 = _mm_set1_epi8((char)flip);
    uint8_t *groups = panel;
    memset(sums, 0, width * sizeof *sums);
    for (size_t p = 0; p < k; p += KR, src += KR * k_stride) {
        /* Long rows lie in pages of their own, across which the hardware foresees nothing. */
        for (int i = 0; i < KR; i++)
            __builtin_prefetch((const void *)((uintptr_t)src + (size_t)(LINES_AHEAD + i) * (size_t)k_stride), 0, 3);
        for (size_t j = 0; j < width; j += 16, groups += 16 * KR)
            interleave_lines(src + j, k_stride, flip_u8x16, groups, sums + j);
    }
}

/* ----------------------------------------------------------------------------------------------- descriptor */

static uint64_t peak(uint64_t rounds)
{
    enum { REPEATS = 4 };
    vi acc[16], x = vi_set1(0x01010101);
    QK_UNROLL16(c, PEAK_SUMS, {
        acc[c] = x;
        QK_OPAQUE(acc[c]); /* or the compiler would see that all are equal */
    })
    for (uint64_t r = 0; r < rounds; r++) {
        QK_UNROLL4(u, REPEATS, QK_UNROLL16(c, PEAK_SUMS, {
            QK_OPAQUE(x); /* or a product would be taken out of the loop */
            acc[c] = multiply_add(acc[c], x, x);
            QK_OPAQUE(acc[c]); /* or products would be started in heaps, and spilled */
        }))
    }
    QK_UNROLL16(c, PEAK_SUMS, QK_OPAQUE(acc[c]);)
    return rounds * REPEATS * PEAK_SUMS * LANES * KR;
}

#define QK_TILE_CASE(m, v, chains)                                                                           \
    case m * 8 + v: run_tile(tile, to, m, v, chains); break;

#define QK_DEFINE_RUN_STORE(name, output)                                                                    \
    static void name(const qk_gemm_tile *tile, const qk_store_args *args, size_t column,                     \
                     const qk_store_rows *rows, void *out, size_t out_row_bytes)                             \
    {                                                                                                        \
        run_to(tile, &(destination){output, args, column, rows, out, out_row_bytes});                        \
    }

/* The kernel; TILES(X) lists X(rows, vectors, chains). */
#define QK_DEFINE_GEMM_BROADCAST(isa, TILES)                                                                 \
    static void run_to(const qk_gemm_tile *tile, const destination *to)                                      \
    {                                                                                                        \
        switch (tile->m * 8 + tile->n / LANES) { TILES(QK_TILE_CASE) }                                       \
    }                                                                                                        \
    static void run(const qk_gemm_tile *tile) { run_to(tile, &(destination){.output = SUMS}); }              \
    QK_DEFINE_RUN_STORE(run_store_s32, QK_OUT_S32)                                                           \
    QK_DEFINE_RUN_STORE(run_store_f32, QK_OUT_F32)                                                           \
    QK_DEFINE_RUN_STORE(run_store_q8, QK_OUT_Q8)                                                             \
    qk_gemm_s8_type qk_gemm_s8_##isa = {                                                                     \
        .mr = MR, .nr = NR, .kr = KR, .n_unit = N_UNIT, .a_bytes = A_BYTES, .a_by_rows = 1,                  \
        .a_signed = A_SIGNED, .b_signed = 1, .pack_a = pack_a, .pack_b = pack_b, .run = run, .peak = peak,   \
        .run_store = {[QK_OUT_S32] = run_store_s32, [QK_OUT_F32] = run_store_f32, [QK_OUT_Q8] = run_store_q8}, \
    };

#endif
