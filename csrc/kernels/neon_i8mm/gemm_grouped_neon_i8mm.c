/* Weights in blocks along k, int8 x uint8 codes -> int32 -> float32, with the usmmla of the i8mm extension; tile and layout:
 * kernels/gemm_grouped_body.h.
 *
 * usmmla multiplies 2 columns of 8 codes with 2 rows of 8 bytes and adds the 2 x 2 products to four 32-bit lanes:
 *
 *      codes = column 0, k 0..7 | column 1, k 0..7        acc = column 0 row 0, column 0 row 1, column 1 row 0, column 1 row 1
 *      a     = row 0, k 0..7 | row 1, k 0..7
 *
 * A's rows come 16 bytes at a time, and a pair of them is put together by halves, for two steps.
 *
 * Order: line by line, column pair by column pair, all steps of a vector of packed codes before the next; each register is
 * loaded AHEAD usmmla before the first that needs it (kernels/neon/in_order.h).
 * Registers (4 x 16): 16 accumulators, 8 of A, up to 4 of codes, and of packed records the mask.
 * Tails: the missing partner of an odd last row is that row once more, and its sums are dropped.
 */
enum { NR = 16, KR = 8 };

#include "kernels/neon/grouped_neon.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "compile this folder with the flags of csrc/build.py"
#endif

enum { MR = 4, FEW = MR, BYTE_ROWS = MR, SIGN_ROWS = 0, TABLE_ROWS = MR, TRELLIS_ROWS = 0 };
enum { NV = NR / LANES, BYTES_SIGNED = 0, SMALL_APART = 0 };
enum { ROWS = 2, PAIRS = NV * ROWS /* of columns */, STEPS = CHUNK / KR, A_STEPS = VECTOR / KR, AHEAD = 4 };

/* Of two rows: row 0, row 1, row 0, row 1. */
QK_INLINE vi load_terms(const int32_t *terms, size_t row_blocks, size_t rows)
{
    return vzip1q_s32(vi_set1(terms[0]), vi_set1(terms[rows > 1 ? row_blocks : 0]));
}

/* Of the columns of a pair: column 0 twice, column 1 twice. */
QK_INLINE vi spread_zeros(vi zeros, const size_t pair)
{
    return pair == 0 ? vzip1q_s32(zeros, zeros) : vzip2q_s32(zeros, zeros);
}

QK_INLINE vi sums_of_row(const vi *acc, const size_t i, const size_t j)
{
    const vi *pairs = acc + i / ROWS * PAIRS + j * ROWS;
    return i % ROWS == 0 ? vuzp1q_s32(pairs[0], pairs[1]) : vuzp2q_s32(pairs[0], pairs[1]);
}

/* acc += the products of two columns and two rows. */
QK_INLINE void multiply_pairs(vi *acc_s32x4, int8x16_t codes_u8x16, int8x16_t a_s8x16)
{
    __asm__ volatile("usmmla %0.4s, %1.16b, %2.16b" : "+w"(*acc_s32x4) : "w"(codes_u8x16), "w"(a_s8x16));
}

/* Vector v of codes, in the order of use: the step, its two columns, and the vector of packed codes that it is part of. */
typedef struct place {
    size_t step, pair, packed;
} place;

QK_INLINE place place_of(const size_t v, const coding in)
{
    const size_t per_byte = 8 / (size_t)in.bits, packed = v / per_byte;
    return (place){packed / PAIRS * per_byte + v % per_byte, packed % PAIRS, packed};
}

/* What a chunk is multiplied from. */
typedef struct chunk {
    int8x16_t packed_s8x16[STEPS * PAIRS], codes_s8x16[STEPS * PAIRS];
    int8x16_t a_s8x16[STEPS][MR]; /* as far as the unrolled loops are written */
} chunk;

/* 16 bytes of two rows, or twice of one, as pairs of rows for two steps. */
QK_INLINE void load_rows(int8x16_t *step0_s8x16, int8x16_t *step1_s8x16, const int8_t *a, size_t a_stride, const size_t rows)
{
    const int64x2_t row0 = vreinterpretq_s64_s8(load_here(a));
    const int64x2_t row1 = rows > 1 ? vreinterpretq_s64_s8(load_here(a + a_stride)) : row0;
    *step0_s8x16 = vreinterpretq_s8_s64(vzip1q_s64(row0, row1));
    *step1_s8x16 = vreinterpretq_s8_s64(vzip2q_s64(row0, row1));
}

/* Load what usmmla number p of a chunk is the first to need. */
QK_INLINE void load_for(const size_t p, chunk *x, const int8_t *a, size_t a_stride, const uint8_t *codes, const size_t m,
                        const coding in)
{
    const size_t row_pairs = (m + 1) / ROWS, i = p % row_pairs, v = p / row_pairs;
    const place at = place_of(v, in);
    if (v >= STEPS * PAIRS)
        return;
    if (i == 0 && v * (size_t)in.bits % 8 == 0)
        x->packed_s8x16[at.packed] = load_here((const int8_t *)codes + at.packed * VECTOR);
    if (i == 0)
        x->codes_s8x16[v] = codes_of_step(x->packed_s8x16[at.packed], at.step, in);
    if (at.pair == 0 && at.step % A_STEPS == 0)
        load_rows(&x->a_s8x16[at.step][i], &x->a_s8x16[at.step + 1][i], a + i * ROWS * a_stride + at.step * KR, a_stride,
                  m - i * ROWS);
}

QK_INLINE void add_chunk(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *codes, const size_t m, const coding in)
{
    const size_t row_pairs = (m + 1) / ROWS;
    chunk x;
    QK_UNROLL4(p, AHEAD, load_for(p, &x, a, a_stride, codes, m, in);)
    QK_UNROLL32(v, STEPS * PAIRS, QK_UNROLL4(i, row_pairs, {
        const place at = place_of(v, in);
        load_for(v * row_pairs + i + AHEAD, &x, a, a_stride, codes, m, in);
        multiply_pairs(&acc[i * PAIRS + at.pair], x.codes_s8x16[v], x.a_s8x16[at.step][i]);
    }))
}

QK_INLINE void add_block(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *codes, size_t block, const size_t m,
                         const coding in)
{
    const size_t chunk_bytes = CHUNK * NR * (size_t)in.bits / 8;
    for (size_t chunks = block / CHUNK; chunks > 0; chunks--, a += CHUNK, codes += chunk_bytes) {
        begin_chunk(&a, &codes, chunk_bytes, in);
        add_chunk(acc, a, a_stride, codes, m, in);
    }
}

#include "kernels/gemm_grouped_body.h"

QK_DEFINE_GEMM_GROUPED(neon_i8mm)
