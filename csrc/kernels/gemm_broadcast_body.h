/* acc[m][n] += a[m][k] * b[k][n] by broadcasting A, once for all x86 ISAs. A kernel file includes its vocabulary, defines
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
 * addition: `chains` independent sums, over interleaved steps, fill them.
 * Memory: B comes from the L1 or L2 cache, where an earlier tile or `prefetch` has brought it; the lines of the output are
 * asked for a line a step. Together they would fill the line buffers, and the loads from A would have to wait for them.
 * Tails: tiles of every height and width; k by the packers' zeros.
 */
#ifndef QK_GEMM_BROADCAST_BODY_H
#define QK_GEMM_BROADCAST_BODY_H

#include <string.h>

#include "kernels.h"
#include "kernels/pack_panel.h"
#include "kernels/store_body.h"
#include "kernels/unroll.h"

enum { NR = NV * LANES, B_VECTOR = LANES * KR /* bytes */, LINE = 64, STEP_OF_A = KR * A_BYTES };

/* A tile's sums: [chain][row][vector], as far as the unrolled loops are written; what a tile does not have, does not
 * exist. */
typedef vi sums_of_tile[4][8][4];

/* ------------------------------------------------------------------------------------------------- multiply */

/* One step: add the products of m rows and v vectors. */
QK_INLINE void add_step(vi (*acc)[4], const uint8_t *a, size_t a_stride, const uint8_t *b, const size_t m, const size_t v)
{
    vi b_vector[4];
    QK_UNROLL4(j, v, b_vector[j] = load_b(b + j * B_VECTOR);)
    QK_UNROLL8(i, m, {
        int32_t group;
        memcpy(&group, a + i * a_stride, sizeof group);
        vi a_broadcast = vi_set1(group);
        QK_UNROLL4(j, v, acc[i][j] = multiply_add(acc[i][j], a_broadcast, b_vector[j]);)
    })
}

/* The compiler would begin a later loop's work in an earlier one, and copy every sum once a step for it. */
QK_INLINE void keep_apart(vi (*acc)[8][4], const size_t m, const size_t v, const size_t chains)
{
    QK_UNROLL4(c, chains, QK_UNROLL8(i, m, QK_UNROLL4(j, v, QK_OPAQUE(acc[c][i][j]);)))
}

/* Steps of k that a tile has still to do. */
typedef struct position {
    const uint8_t *a, *b;
    uintptr_t prefetch; /* an integer: it may leave its object, and wrap, as a pointer must not */
    size_t a_stride, prefetch_stride;
} position;

/* `steps` steps, `chains` at a time. */
QK_INLINE void add_steps(vi (*acc)[8][4], position *at, size_t steps, const size_t m, const size_t v, const size_t chains)
{
    const size_t b_step = v * B_VECTOR;
    for (; steps >= chains; steps -= chains) {
        QK_UNROLL4(c, chains, {
            if (m < 4) { /* bound by memory: every line of B is wanted early */
                QK_UNROLL4(j, v, {
                    if (j * B_VECTOR % LINE == 0)
                        __builtin_prefetch((const void *)(at->prefetch + j * B_VECTOR), 0, 3);
                })
            } else {
                __builtin_prefetch((const void *)at->prefetch, 0, 2);
            }
            add_step(acc[c], at->a + c * STEP_OF_A, at->a_stride, at->b + c * b_step, m, v);
            at->prefetch += at->prefetch_stride;
        })
        at->a += chains * STEP_OF_A;
        at->b += chains * b_step;
    }
    keep_apart(acc, m, v, chains);
}

/* All the sums of a tile. out: m rows of `out_lines` cache lines, out_row_bytes apart, to be prefetched. */
QK_INLINE void multiply(vi (*acc)[8][4], const qk_gemm_tile *tile, const size_t m, const size_t v, const size_t chains,
                        uintptr_t out, size_t out_row_bytes, const size_t out_lines)
{
    position at = {
        .a = tile->a + (size_t)tile->first_step * STEP_OF_A,
        .b = tile->b + tile->first_step * v * B_VECTOR,
        .prefetch = (uintptr_t)tile->prefetch,
        .a_stride = tile->a_stride,
        .prefetch_stride = tile->prefetch_stride,
    };
    size_t steps = tile->k_steps;

    QK_UNROLL8(i, m, QK_UNROLL4(j, v, acc[0][i][j] = vi_set1(0);))
    if (tile->accumulate) {
        QK_UNROLL8(i, m, QK_UNROLL4(j, v, acc[0][i][j] = vi_load(tile->sums + i * NR + j * LANES);))
    }
    QK_UNROLL4(c, chains, if (c > 0) { QK_UNROLL8(i, m, QK_UNROLL4(j, v, acc[c][i][j] = vi_set1(0);)) })

    if (out_lines && chains == 1) {
        size_t lead = m * out_lines < steps ? m * out_lines : steps;
        steps -= lead;
        for (size_t left = out_lines; lead > 0; lead--) {
            __builtin_prefetch((const void *)out, 1);
            out += LINE;
            if (--left == 0) {
                left = out_lines;
                out += out_row_bytes - out_lines * LINE;
            }
            add_step(acc[0], at.a, at.a_stride, at.b, m, v);
            at.a += STEP_OF_A;
            at.b += v * B_VECTOR;
        }
        keep_apart(acc, m, v, 1);
    } else {
        for (size_t i = 0; i < m; i++, out += out_row_bytes)
            QK_UNROLL4(line, out_lines, __builtin_prefetch((const void *)(out + line * LINE), 1);)
    }
    add_steps(acc, &at, steps, m, v, chains);
    if (chains > 1)
        add_steps(acc, &at, steps % chains, m, v, 1);

    QK_UNROLL4(c, chains, if (c > 0) {
        QK_UNROLL8(i, m, QK_UNROLL4(j, v, acc[0][i][j] = vi_add(acc[0][i][j], acc[c][i][j]);))
    })
}

QK_INLINE void run_tile(const qk_gemm_tile *tile, const size_t m, const size_t v, const size_t chains)
{
    sums_of_tile acc;
    multiply(acc, tile, m, v, chains, 0, 0, 0);
    QK_UNROLL8(i, m, QK_UNROLL4(j, v, vi_store(tile->sums + i * NR + j * LANES, acc[0][i][j]);))
}

/* ------------------------------------------------------------------------------------------- to the output */

/* Defines store_tile_<output>: `put` stores the results of row i, columns c .. c + LANES to dst, from acc. */
#define QK_DEFINE_STORE_TILE(output, out_type, put)                                                          \
    QK_INLINE void store_tile_##output(const qk_gemm_tile *tile, const qk_store_args *args, size_t column,   \
                                       const qk_store_rows *rows, void *out, size_t out_row_bytes,           \
                                       const size_t m, const size_t v, const size_t chains)                  \
    {                                                                                                        \
        sums_of_tile sums;                                                                                   \
        multiply(sums, tile, m, v, chains, (uintptr_t)out, out_row_bytes,                                    \
                 (v * LANES * sizeof(out_type) + LINE - 1) / LINE);                                          \
        QK_UNROLL8(i, m, {                                                                                   \
            const float row_scale = rows->row_scales ? rows->row_scales[i] : 1.0f;                           \
            QK_UNROLL4(j, v, {                                                                               \
                const size_t c = column + j * LANES;                                                         \
                out_type *dst = (out_type *)((char *)out + i * out_row_bytes) + j * LANES;                   \
                vi acc = vi_add(sums[0][i][j], vi_load(args->column_term + c));                              \
                put;                                                                                         \
            })                                                                                               \
            (void)row_scale;                                                                                 \
        })                                                                                                   \
    }

QK_DEFINE_STORE_TILE(s32, int32_t, vi_store(dst, acc))
QK_DEFINE_STORE_TILE(f32, float, vf_store(dst, scaled(acc, row_scale, c, args)))
QK_DEFINE_STORE_TILE(q8, uint8_t, vi_store_bytes(dst, quantized(acc, row_scale, c, args)))

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

static void pack_b(const uint8_t *src, ptrdiff_t stride, ptrdiff_t k_stride, size_t count, size_t k, uint8_t flip,
                   void *panel, int32_t *sums)
{
    const size_t width = (count + N_UNIT - 1) / N_UNIT * N_UNIT;
    pack_panel(src, stride, k_stride, count, width, k, KR, flip, 1, panel, sums);
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

#define QK_RUN_CASE(m, v, chains)                                                                            \
    case m * 8 + v: run_tile(tile, m, v, chains); break;
#define QK_STORE_CASE(output, m, v, chains)                                                                  \
    case m * 8 + v: store_tile_##output(tile, args, column, rows, out, out_row_bytes, m, v, chains); break;
#define QK_S32_CASE(m, v, chains) QK_STORE_CASE(s32, m, v, chains)
#define QK_F32_CASE(m, v, chains) QK_STORE_CASE(f32, m, v, chains)
#define QK_Q8_CASE(m, v, chains) QK_STORE_CASE(q8, m, v, chains)

#define QK_DEFINE_RUN_STORE(output, CASES)                                                                   \
    static void run_store_##output(const qk_gemm_tile *tile, const qk_store_args *args, size_t column,       \
                                   const qk_store_rows *rows, void *out, size_t out_row_bytes)               \
    {                                                                                                        \
        switch (tile->m * 8 + tile->n / LANES) { CASES }                                                     \
    }

/* The kernel; TILES(X) lists X(rows, vectors, chains). */
#define QK_DEFINE_GEMM_BROADCAST(isa, TILES)                                                                 \
    static void run(const qk_gemm_tile *tile)                                                                \
    {                                                                                                        \
        switch (tile->m * 8 + tile->n / LANES) { TILES(QK_RUN_CASE) }                                        \
    }                                                                                                        \
    QK_DEFINE_RUN_STORE(s32, TILES(QK_S32_CASE))                                                             \
    QK_DEFINE_RUN_STORE(f32, TILES(QK_F32_CASE))                                                             \
    QK_DEFINE_RUN_STORE(q8, TILES(QK_Q8_CASE))                                                               \
    qk_gemm_s8_type qk_gemm_s8_##isa = {                                                                     \
        .mr = MR, .nr = NR, .kr = KR, .n_unit = N_UNIT, .a_bytes = A_BYTES, .a_by_rows = 1,                  \
        .a_signed = A_SIGNED, .b_signed = 1, .pack_a = pack_a, .pack_b = pack_b, .run = run, .peak = peak,   \
        .run_store = {[QK_OUT_S32] = run_store_s32, [QK_OUT_F32] = run_store_f32, [QK_OUT_Q8] = run_store_q8}, \
    };

#endif
