/* Weights in blocks along k, int8 x int8 codes -> int32 -> float32, with the sdot of ARMv8.2's dot product extension; tile
 * and layout: kernels/gemm_grouped_body.h.
 *
 * sdot adds to each 32-bit lane the four products of a column's four codes with four bytes of one row of A, which come from
 * a lane of a register: a register of A, 16 bytes of a row, is good for four steps.
 *
 * Order: line by line, four columns by four, all steps of a vector of packed codes before the next; each register is loaded
 * AHEAD sdot before the first that needs it (kernels/neon/in_order.h). One row has a second set of sums, for odd steps: the
 * latency of sdot takes 8 at a time to hide where there are two pipes, and a step has 4.
 * Registers (4 x 16): 16 accumulators, 8 of A, up to 4 of codes, and of packed records the mask.
 */
enum { NR = 16, KR = 4 };

#include "kernels/neon/grouped_neon.h"
#include "kernels/neon_dotprod/dot_lane.h"

enum { MR = 4, FEW = MR, BYTE_ROWS = MR, SIGN_ROWS = 0, TABLE_ROWS = MR, TRELLIS_ROWS = 0 };
enum { NV = NR / LANES, BYTES_SIGNED = 1, SMALL_APART = 0 };
enum { STEPS = CHUNK / KR, A_STEPS = VECTOR / KR, AHEAD = 8 };

#include "kernels/grouped_by_row.h"

/* Vector v of codes, in the order of use: the step, its four columns, and the vector of packed codes that it is part of. */
typedef struct place {
    size_t step, quad, packed;
} place;

QK_INLINE place place_of(const size_t v, const coding in)
{
    const size_t per_byte = 8 / (size_t)in.bits, packed = v / per_byte;
    return (place){packed / NV * per_byte + v % per_byte, packed % NV, packed};
}

/* What a chunk is multiplied from. */
typedef struct chunk {
    int8x16_t packed_s8x16[STEPS * NV], codes_s8x16[STEPS * NV], a_s8x16[STEPS / A_STEPS * MR];
} chunk;

/* Load what sdot number `dot` of a chunk is the first to need. */
QK_INLINE void load_for(const size_t dot, chunk *x, const int8_t *a, size_t a_stride, const uint8_t *codes, const size_t m,
                        const coding in)
{
    const size_t i = dot % m, v = dot / m;
    const place at = place_of(v, in);
    if (v >= STEPS * NV)
        return;
    if (i == 0 && v * (size_t)in.bits % 8 == 0)
        x->packed_s8x16[at.packed] = load_here((const int8_t *)codes + at.packed * VECTOR);
    if (i == 0)
        x->codes_s8x16[v] = codes_of_step(x->packed_s8x16[at.packed], at.step, in);
    if (at.quad == 0 && at.step % A_STEPS == 0)
        x->a_s8x16[at.step / A_STEPS * MR + i] = load_here(a + i * a_stride + at.step * KR);
}

QK_INLINE void add_chunk(vi (*acc)[MR * NV], const int8_t *a, size_t a_stride, const uint8_t *codes, const size_t m,
                         const size_t chains, const coding in)
{
    chunk x;
    QK_UNROLL8(dot, AHEAD, load_for(dot, &x, a, a_stride, codes, m, in);)
    QK_UNROLL32(v, STEPS * NV, QK_UNROLL4(i, m, {
        const place at = place_of(v, in);
        load_for(v * m + i + AHEAD, &x, a, a_stride, codes, m, in);
        dot_lane(&acc[at.step % chains][i * NV + at.quad], x.codes_s8x16[v], x.a_s8x16[at.step / A_STEPS * MR + i],
                 at.step % A_STEPS);
    }))
}

QK_INLINE void add_block(vi *acc, const int8_t *a, size_t a_stride, const uint8_t *codes, size_t block, const size_t m,
                         const coding in)
{
    const size_t chains = m == 1 ? 2 : 1, chunk_bytes = CHUNK * NR * (size_t)in.bits / 8;
    vi sums[2][MR * NV];
    QK_UNROLL16(x, m * NV, {
        sums[0][x] = acc[x];
        sums[1][x] = vi_set1(0);
    })
    for (size_t chunks = block / CHUNK; chunks > 0; chunks--, a += CHUNK, codes += chunk_bytes) {
        begin_chunk(&a, &codes, chunk_bytes, in);
        add_chunk(sums, a, a_stride, codes, m, chains, in);
    }
    QK_UNROLL16(x, m * NV, acc[x] = chains == 2 ? vi_add(sums[0][x], sums[1][x]) : sums[0][x];)
}

#include "kernels/gemm_grouped_body.h"

QK_DEFINE_GEMM_GROUPED(neon_dotprod)
