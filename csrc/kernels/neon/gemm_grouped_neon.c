/* Weights in blocks along k, int8 x codes -> int32 -> float32, exact on ARMv8.0; tile and layout: kernels/gemm_grouped_body.h.
 *
 * Trick: the cheapest byte products are smull, smlal and smlal2, into int16. Codes below 16 leave room there for 17 of them,
 * 15 * 127 each: a lane takes four, pairs of lanes are added twice in int16, which makes 16, and then in int32. Signed codes
 * of 8 bits leave room for two, 128 * 127 each, and meet in int32 at once.
 *
 * Layout: a step of two columns is a vector; two steps are put together as 16 values of one column, to meet 16 of a row.
 * Order: column by column, in batches of four: four products of the lower halves, four of the upper ones, four additions
 * where there are any, so that no instruction waits for the one before it; each register is loaded a batch before the
 * first that needs it (kernels/neon/in_order.h).
 * Registers: 4 x 4, codes below 16: 16 sums of a row and a column, 4 sums of a row, 4 of A, 4 of codes, 2 that these are put
 * together from = 30. Codes of 8 bits take 4 products more: 3 rows at once.
 */
enum { NR = 4, KR = 8 };

#include "kernels/neon/grouped_neon.h"
#include "kernels/neon/multiply_neon.h"

enum { MR = 4, FEW = MR, BYTE_ROWS = 3, SIGN_ROWS = 0, TABLE_ROWS = 2, TRELLIS_ROWS = 0 };
enum { NV = NR / LANES, BYTES_SIGNED = 1, SMALL_APART = 1 };
enum { STEPS = CHUNK / KR, PAIRS = NR / 2 /* of columns */, HALVES = CHUNK / VECTOR, BATCH = 4 };

#include "kernels/grouped_by_row.h"

/* What a chunk is multiplied from. */
typedef struct chunk {
    int8x16_t packed_s8x16[STEPS][PAIRS], codes_s8x16[HALVES][NR], a_s8x16[HALVES][MR];
} chunk;

/* Sums of a row's products with a column, in lanes: of a chunk with codes below 16, of a block with codes of 8 bits; and
 * where the products of these pass through. */
typedef struct lane_sums {
    int16x8_t small_s16x8[MR][NR];
    int32x4_t bytes_s32x4[MR][NR];
    int16x8_t ab_s16x8[BATCH];
} lane_sums;

/* Load 16 values of two columns: both steps of half a chunk. */
QK_INLINE void load_columns(chunk *x, const size_t half, const size_t pair, const uint8_t *codes, const coding in)
{
    const size_t per_byte = 8 / (size_t)in.bits, step = 2 * half, line = step / per_byte, next = (step + 1) / per_byte;
    if (step % per_byte == 0)
        x->packed_s8x16[line][pair] = load_here((const int8_t *)codes + (line * PAIRS + pair) * VECTOR);
    if (next != line)
        x->packed_s8x16[next][pair] = load_here((const int8_t *)codes + (next * PAIRS + pair) * VECTOR);
    const int64x2_t low = vreinterpretq_s64_s8(codes_of_step(x->packed_s8x16[line][pair], step, in));
    const int64x2_t high = vreinterpretq_s64_s8(codes_of_step(x->packed_s8x16[next][pair], step + 1, in));
    int8x16_t column0 = vreinterpretq_s8_s64(vzip1q_s64(low, high)), column1 = vreinterpretq_s8_s64(vzip2q_s64(low, high));
    QK_OPAQUE(column0); /* here, lest all be put together early, and spilled */
    QK_OPAQUE(column1);
    x->codes_s8x16[half][2 * pair] = column0;
    x->codes_s8x16[half][2 * pair + 1] = column1;
}

/* Load what product p of a chunk is the first to need. */
QK_INLINE void load_for(const size_t p, chunk *x, const int8_t *a, size_t a_stride, const uint8_t *codes, const size_t m,
                        const coding in)
{
    const size_t i = p % m, column = p / m % NR, half = p / m / NR;
    if (half >= HALVES)
        return;
    if (i == 0 && column % 2 == 0)
        load_columns(x, half, column / 2, codes, in);
    if (column == 0)
        x->a_s8x16[half][i] = load_here(a + i * a_stride + half * VECTOR);
}

QK_INLINE void add_chunk(lane_sums *sums, const int8_t *a, size_t a_stride, const uint8_t *codes, const size_t m,
                         const coding in)
{
    chunk x;
    QK_UNROLL4(p, BATCH, load_for(p, &x, a, a_stride, codes, m, in);)
    QK_UNROLL8(batch, HALVES * NR * m / BATCH, {
        enum { first = batch * BATCH };
        QK_UNROLL4(n, BATCH, {
            const size_t p = first + n, i = p % m, column = p / m % NR, half = p / m / NR;
            int16x8_t *ab_s16x8 = in.small ? &sums->small_s16x8[i][column] : &sums->ab_s16x8[n];
            if (in.small && half > 0)
                add_low_product(ab_s16x8, x.a_s8x16[half][i], x.codes_s8x16[half][column]);
            else
                multiply_low(ab_s16x8, x.a_s8x16[half][i], x.codes_s8x16[half][column]);
        })
        QK_UNROLL4(n, BATCH, {
            const size_t p = first + n, i = p % m, column = p / m % NR, half = p / m / NR;
            int16x8_t *ab_s16x8 = in.small ? &sums->small_s16x8[i][column] : &sums->ab_s16x8[n];
            add_high_product(ab_s16x8, x.a_s8x16[half][i], x.codes_s8x16[half][column]);
            load_for(p + BATCH, &x, a, a_stride, codes, m, in);
        })
        QK_UNROLL4(n, BATCH, {
            const size_t p = first + n;
            if (!in.small)
                add_pairs(&sums->bytes_s32x4[p % m][p / m % NR], sums->ab_s16x8[n]);
        })
    })
}

/* acc += four columns' sums of a row, whose lanes are added up: in int16 as far as these have room. */
QK_INLINE vi add_columns(vi acc, const lane_sums *sums, const size_t i, const coding in)
{
    if (in.small) {
        const int16x8_t *of_s16x8 = sums->small_s16x8[i];
        const int16x8_t columns01 = vpaddq_s16(of_s16x8[0], of_s16x8[1]), columns23 = vpaddq_s16(of_s16x8[2], of_s16x8[3]);
        return vpadalq_s16(acc, vpaddq_s16(columns01, columns23));
    }
    const int32x4_t *of_s32x4 = sums->bytes_s32x4[i];
    return vi_add(acc, vpaddq_s32(vpaddq_s32(of_s32x4[0], of_s32x4[1]), vpaddq_s32(of_s32x4[2], of_s32x4[3])));
}

QK_INLINE void add_block(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *codes, size_t block, const size_t m,
                         const coding in)
{
    const size_t chunk_bytes = CHUNK * NR * (size_t)in.bits / 8;
    lane_sums sums;
    QK_UNROLL4(n, BATCH, sums.ab_s16x8[n] = vdupq_n_s16(0);)
    QK_UNROLL4(i, m, QK_UNROLL4(j, NR, {
        sums.small_s16x8[i][j] = vdupq_n_s16(0);
        sums.bytes_s32x4[i][j] = vdupq_n_s32(0);
    }))
    for (size_t chunks = block / CHUNK; chunks > 0; chunks--, a += CHUNK, codes += chunk_bytes) {
        begin_chunk(&a, &codes, chunk_bytes, in);
        add_chunk(&sums, a, a_stride, codes, m, in);
        QK_UNROLL4(i, m, if (in.small) acc[i] = add_columns(acc[i], &sums, i, in);)
    }
    QK_UNROLL4(i, m, if (!in.small) acc[i] = add_columns(acc[i], &sums, i, in);)
}

#include "kernels/gemm_grouped_body.h"

QK_DEFINE_GEMM_GROUPED(neon)
