/* Weights in blocks along k on all SIMD ISAs: the tile on plain records, the tile that decodes in registers, and
 * the decoders (qk_records, qk_grouped_tile in kernels.h). A kernel file includes its vocabulary, defines
 *
 *      MR, NR, KR, NV                     the tile: rows, columns, values of k that lie together, vectors of LANES columns
 *      FEW, BYTE_ROWS                     rows with enough registers: while codes are decoded, with codes of 8 bits
 *      BYTES_SIGNED, SMALL_APART          8-bit codes are stored as int8; codes below 16 have a multiply of their own
 *      load_codes(p), store_codes(p, x)   a vector of bytes
 *      codes_at(packed, shift, mask)      packed >> shift & mask, in each byte
 *      zero_terms(zeros, terms)           zeros * terms, both within 16 bits
 *      load_scales(p, bytes)              LANES scales, float16 or float32
 *      load_zeros(p)                      LANES bytes as int32
 *      add_block(acc, a, a_stride, codes, block, m, in)    acc + the products of m rows and a record
 *      ROWS, load_terms, spread_zeros, sums_of_row         where acc keeps which sum: kernels/grouped_by_row.h
 *      SIGN_ROWS, TABLE_ROWS, TRELLIS_ROWS                 rows that decode these in registers, or 0
 *      look_up(table, codes), look_up_by_row(tables, codes) table[code], codes below 16; by row: the tables of a vector
 *      and what kernels/grouped_planes.h asks for
 *
 * includes this file, and calls QK_DEFINE_GEMM_GROUPED(isa).
 *
 * Trick: the zero point of a whole block is one number a row, with which the sums start.
 * Registers: the int32 sums of a block are converted, scaled and added to the float sums of the tile, which live in
 * the L1 cache, so that the integer tile may have all registers. (avx512vnni, plain records, blocks of 32, Ice Lake:
 * 0.70 of the multiply's peak. Without these loads and stores it is 0.79, and 0.80 is what the two ports that multiply,
 * convert and add allow; tiles of 6 x 32, 3 x 64 and 4 x 48 with float sums in registers came to 0.68 to 0.71.)
 * Memory: with few rows reading the weight is the work; it is asked for ahead of its use (kernels/grouped_codes.h).
 */
#ifndef QK_GEMM_GROUPED_BODY_H
#define QK_GEMM_GROUPED_BODY_H

#include <string.h>

#include "kernels.h"
#include "kernels/grouped_codes.h"
#include "kernels/grouped_planes.h"
#include "kernels/unroll.h"

enum { LINE_VECTORS = NR * KR / sizeof(vi) };

/* LANES zero points of a record, as the codes are counted. */
QK_INLINE vi load_record_zeros(const uint8_t *zeros, const size_t first, const coding in)
{
    if (in.plain)
        return vi_load((const int32_t *)zeros + first);
    const vi bytes = load_zeros(zeros + first), sign = vi_set1(0x80);
    return BYTES_SIGNED && in.bits == 8 ? vi_sub(vi_xor(bytes, sign), sign) : bytes;
}

/* ---------------------------------------------------------------------------------------------------- tiles */

/* What the zero points come to, before the first product. */
QK_INLINE void start_block(vi *acc, const int32_t *terms, size_t row_blocks, const uint8_t *zeros, int has_zero_points,
                           const size_t m, const coding in)
{
    if (has_zero_points) {
        QK_UNROLL4(j, NV, {
            const vi zero = load_record_zeros(zeros, j * LANES, in);
            QK_UNROLL4(part, ROWS, QK_UNROLL8(i, (m + ROWS - 1) / ROWS, {
                const vi term = load_terms(terms + i * ROWS * row_blocks, row_blocks, m - i * ROWS);
                acc[(i * NV + j) * ROWS + part] = zero_terms(spread_zeros(zero, part), term);
            }))
        })
    } else {
        QK_UNROLL8(i, (m + ROWS - 1) / ROWS, {
            const vi term = load_terms(terms + i * ROWS * row_blocks, row_blocks, m - i * ROWS);
            QK_UNROLL8(j, NV * ROWS, acc[i * NV * ROWS + j] = term;)
        })
    }
    /* The compiler would begin a later loop's work in an earlier one, and copy sums for it, or spill them. */
    QK_UNROLL32(x, (m + ROWS - 1) / ROWS * ROWS * NV, QK_OPAQUE(acc[x]);)
}

/* Scale a block's sums and add them to those of the tile. */
QK_INLINE void scale_block(const vi *acc, const vf *scales, const float *a_scales, size_t row_blocks, float *sums,
                           const size_t m, const int scaled)
{
    QK_UNROLL8(i, m, {
        const vf a_scale = vf_set1(scaled ? a_scales[i * row_blocks] : 1.0f);
        QK_UNROLL4(j, NV, {
            const vf sum = vi_to_vf(sums_of_row(acc, i, j));
            float *at = sums + i * NR + j * LANES;
            vf_store(at, vf_fma(scaled ? vf_mul(sum, a_scale) : sum, scales[j], vf_load(at)));
        })
    })
}

/* One record of a panel. */
QK_INLINE void run_record(const qk_grouped_tile *tile, size_t b, const int8_t *a, const uint8_t *record, float *sums,
                          const size_t m, const coding in, const int scaled)
{
    const qk_records *records = tile->records;
    const size_t scale_bytes = in.plain ? 4 : records->scale_bytes;
    const uint8_t *scale = record + records->block * NR * in.bits / 8, *zeros = scale + scale_bytes * NR;
    vi acc[32];
    start_block(acc, tile->terms + b, tile->row_blocks, zeros, records->has_zero_points, m, in);
    add_block(acc, a, tile->a_stride, record, records->block, m, in);
    vf scales[NV];
    QK_UNROLL4(j, NV, scales[j] = load_scales(scale + j * LANES * scale_bytes, scale_bytes);)
    scale_block(acc, scales, scaled ? tile->a_scales + b : NULL, tile->row_blocks, sums, m, scaled);
}

QK_INLINE void run_tile(const qk_grouped_tile *tile, const size_t m, coding in, const int scaled)
{
    in.levels = tile->levels;
    const size_t record_bytes = in.plain ? qk_plain_bytes(tile->records, NR) : tile->records->bytes;
    const uint8_t *records = tile->b;
    const int8_t *a = tile->a;
    if (!tile->accumulate)
        memset(tile->sums, 0, tile->panels * m * NR * sizeof(float));
    for (size_t b = 0; b < tile->blocks; b++, records += record_bytes, a += tile->records->block)
        for (size_t p = 0; p < tile->panels; p++)
            run_record(tile, b, a, records + p * tile->panel_bytes, tile->sums + p * m * NR, m, in, scaled);
}

QK_INLINE void run_rows(const qk_grouped_tile *tile, const coding in, const size_t most)
{
    QK_UNROLL8(i, most, {
        if (tile->m == i + 1 && tile->a_scales)
            run_tile(tile, i + 1, in, 1);
        else if (tile->m == i + 1)
            run_tile(tile, i + 1, in, 0);
    })
}

/* ------------------------------------------------------------------------------------------------- decoders */

/* Codes in lines to plain ones. */
QK_INLINE void decode_lines(const uint8_t *line, const qk_records *records, uint8_t *step, const coding in)
{
    for (size_t left = records->block / KR * in.bits / 8; left > 0; left--, line += NR * KR) {
        prefetch_codes(line, NR * KR);
        QK_UNROLL4(s, 8 / in.bits, {
            QK_UNROLL8(x, LINE_VECTORS, {
                vi codes = load_codes(line + x * sizeof(vi));
                if (in.bits < 8)
                    codes = codes_at(codes, s * in.bits, (1 << in.bits) - 1);
                if (in.table)
                    codes = records->row_tables ? look_up_by_row(in.levels + x * sizeof(vi) * QK_TABLE / KR, codes)
                                                : look_up(in.levels, codes);
                store_codes(step + x * sizeof(vi), codes);
            })
            step += NR * KR;
        })
    }
}

QK_INLINE void decode(const uint8_t *packed, const qk_records *records, const uint8_t *levels, size_t blocks, uint8_t *plain,
                      coding in, const int fine)
{
    in.levels = levels;
    const size_t code_bytes = records->block * NR * in.bits / 8, scale_bytes = records->scale_bytes;
    for (size_t b = 0; b < blocks; b++, packed += records->bytes, plain += qk_plain_bytes(records, NR)) {
        if (fine)
            decode_fine(packed, records, plain, in.bits);
        else if (in.planes)
            decode_planes(packed, records->block, plain, in);
        else
            decode_lines(packed, records, plain, in);
        const uint8_t *scales = packed + code_bytes, *zeros = scales + scale_bytes * NR;
        float *plain_scales = (float *)(plain + records->block * NR);
        int32_t *plain_zeros = (int32_t *)(plain_scales + NR);
        QK_UNROLL4(j, NV, {
            vf_store(plain_scales + j * LANES, load_scales(scales + j * LANES * scale_bytes, scale_bytes));
            if (records->has_zero_points)
                vi_store(plain_zeros + j * LANES, load_record_zeros(zeros, j * LANES, in));
        })
    }
}

/* ----------------------------------------------------------------------------------------------- descriptor */

/* X(name, rows of run_packed, fine, coding) */
#define QK_EACH_CODING(X)                                                                                    \
    X(U8, BYTE_ROWS, 0, .bits = 8)                                                                           \
    X(U4, FEW, 0, .bits = 4, .small = 1)                                                                     \
    X(U2, FEW, 0, .bits = 2, .small = 1)                                                                     \
    X(U1, SIGN_ROWS, 0, .bits = 1, .small = 1, .planes = 1)                                                  \
    X(TABLE, TABLE_ROWS, 0, .bits = 4, .table = 1)                                                           \
    X(TRELLIS2, TRELLIS_ROWS, 0, .bits = 2, .planes = 1)                                                     \
    X(TRELLIS3, TRELLIS_ROWS, 0, .bits = 3, .planes = 1)                                                     \
    X(TRELLIS4, TRELLIS_ROWS, 0, .bits = 4, .planes = 1)                                                     \
    X(FINE2, 0, 1, .bits = 2)                                                                                \
    X(FINE3, 0, 1, .bits = 3)                                                                                \
    X(FINE4, 0, 1, .bits = 4)

#define QK_DEFINE_CODING(name, rows, fine, ...)                                                              \
    static inline void run_packed_##name(const qk_grouped_tile *tile)                                        \
    {                                                                                                        \
        run_rows(tile, (coding){__VA_ARGS__}, rows);                                                         \
    }                                                                                                        \
    static void decode_##name(const uint8_t *packed, const qk_records *records, const uint8_t *levels,       \
                              size_t blocks, uint8_t *plain)                                                 \
    {                                                                                                        \
        decode(packed, records, levels, blocks, plain, (coding){__VA_ARGS__}, fine);                         \
    }

#define QK_ROWS_OF(name, rows, fine, ...) [QK_CODES_##name] = rows,
#define QK_RUN_PACKED(name, rows, fine, ...) [QK_CODES_##name] = (rows) ? run_packed_##name : NULL,
#define QK_DECODE(name, rows, fine, ...) [QK_CODES_##name] = decode_##name,
#define QK_RUNS(bytes, small)                                                                                \
    {bytes, small, small, small, bytes, bytes, bytes, bytes, bytes, bytes, bytes}

#define QK_DEFINE_GEMM_GROUPED(isa)                                                                          \
    QK_EACH_CODING(QK_DEFINE_CODING)                                                                         \
    static void run_bytes(const qk_grouped_tile *tile)                                                       \
    {                                                                                                        \
        run_rows(tile, (coding){.bits = 8, .plain = 1}, BYTE_ROWS);                                          \
    }                                                                                                        \
    static inline void run_small(const qk_grouped_tile *tile)                                                \
    {                                                                                                        \
        run_rows(tile, (coding){.bits = 8, .plain = 1, .small = 1}, MR);                                     \
    }                                                                                                        \
    qk_gemm_grouped_type qk_gemm_grouped_##isa = {                                                           \
        .mr = QK_RUNS(BYTE_ROWS, MR), .few = {QK_EACH_CODING(QK_ROWS_OF)}, .nr = NR, .kr = KR,               \
        .bytes_signed = BYTES_SIGNED, .lanes = sizeof(vi) / 16,                                              \
        .run = QK_RUNS(run_bytes, SMALL_APART ? run_small : run_bytes),                                      \
        .run_packed = {QK_EACH_CODING(QK_RUN_PACKED)}, .decode = {QK_EACH_CODING(QK_DECODE)},                \
    };

#endif
