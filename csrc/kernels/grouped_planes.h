/* Codes in planes: signs and trellises (qk_records in kernels.h), for all SIMD ISAs. A vector of a plane holds 32 bits of
 * LANES columns; what comes of it are vectors of four bytes a column, those of k = 4 q to 4 q + 3.
 *
 * Trick: a state is looked up by the low bits of a byte, and the two highest bits of the byte may be anything. So of the six
 * bits that start at bit r of a byte, r <= 2, a shift is all; and for the others, of which the next byte holds the m = r - 2
 * highest, these stay where they are, at the byte's low end, the rest comes from the first byte shifted by 2, whatever r is,
 * and the m-th table has its states turned by m bits:
 *
 *      byte >> 2    . . 7 6 5 4 3 2        r = 4, m = 2: bits 4 to 7 of the byte, 0 and 1 of the next one
 *      next byte    7 6 5 4 3 2 1 0
 *      looked up    . . 7 6 5 4 1 0        one bitwise selection
 *
 * A kernel file defines, beside what kernels/gemm_grouped_body.h asks for,
 *
 *      look_up_state(levels, x)           levels[x & 63] in each byte; of 64 levels in memory
 *      select_bits(mask, a, b)            a where a bit of mask is set, b elsewhere; the same mask in each byte
 *      bytes_shifted(x, n)                each byte >> n; its n highest bits are anything
 *      next_bytes(x)                      bytes 1, 2, 3, 0 of each four
 *      shifted_pair(low, high, n)         bits n to n + 31 of high:low in each 32 bits, 0 < n < 32
 *      sum_of_four(x)                     the sum of each four bytes, which is at most 255
 *      store_two_steps(steps, column, even, odd)    four bytes a column, to two steps [NR][4], or one [NR][8]
 */
#ifndef QK_GROUPED_PLANES_H
#define QK_GROUPED_PLANES_H

#include "kernels.h"
#include "kernels/unroll.h"

enum { CHUNK_K = 32, CHUNK_STEPS = CHUNK_K / 4, MOST_PLANES = 4 };

/* The planes of a chunk for LANES columns, and the one that would follow. */
typedef struct chunk_planes {
    vi plane[MOST_PLANES + 1];
} chunk_planes;

QK_INLINE vi plane_at(const uint8_t *planes, size_t plane, size_t column)
{
    return load_codes(planes + (plane * NR + column) * 4);
}

QK_INLINE chunk_planes load_planes(const uint8_t *planes, size_t column, const int bits)
{
    chunk_planes x;
    QK_UNROLL4(j, bits, x.plane[j] = plane_at(planes, j, column);)
    x.plane[bits] = next_bytes(x.plane[0]);
    return x;
}

/* The bytes to multiply, of k = 4 q to 4 q + 3. */
QK_INLINE vi bytes_of_planes(const chunk_planes *x, const int q, const coding in)
{
    if (in.bits == 1) /* 0 or 2 */
        return q == 0 ? codes_at(vi_add(x->plane[0], x->plane[0]), 0, 2) : codes_at(x->plane[0], q - 1, 2);
    const int j = q * in.bits / 8, r = q * in.bits % 8, m = r > 2 ? r - 2 : 0;
    vi state = x->plane[j];
    if (r > 2)
        state = select_bits((1 << m) - 1, x->plane[j + 1], bytes_shifted(state, 2));
    else if (r > 0)
        state = bytes_shifted(state, r);
    return look_up_state(in.levels + m * QK_STATES, state);
}

/* A block of signs or of a trellis to plain codes. */
QK_INLINE void decode_planes(const uint8_t *planes, size_t block, uint8_t *plain, const coding in)
{
    for (size_t chunks = block / CHUNK_K; chunks > 0; chunks--, planes += in.bits * NR * 4, plain += CHUNK_K * NR)
        for (size_t column = 0; column < NR; column += LANES) {
            const chunk_planes x = load_planes(planes, column, in.bits);
            QK_UNROLL4(s, CHUNK_STEPS / 2, {
                vi even = bytes_of_planes(&x, 2 * s, in), odd = bytes_of_planes(&x, 2 * s + 1, in);
                QK_OPAQUE(even);
                QK_OPAQUE(odd);
                store_two_steps(plain + s * 8 * NR, column, even, odd);
            })
        }
}

/* The levels of k = 4 q to 4 q + 3 of a chunk of a fine trellis: four states, each in 32 bits, are multiplied, their bytes
 * summed, and the sums put together again. A sum plus 2 is the level plus 128. */
QK_INLINE vi fine_bytes(const chunk_planes *x, const int q, vi window_mask, const int bits)
{
    enum { LONGEST_WINDOW = 16 };
    vi bytes = vi_set1(0x02020202);
    QK_UNROLL4(i, 4, {
        const int bit = (4 * q + i) * bits, j = bit / 32, n = bit % 32;
        vi state = x->plane[j];
        QK_OPAQUE(state); /* here, or the compiler would work on all at once, and spill them */
        if (n > 32 - LONGEST_WINDOW)
            state = shifted_pair(state, x->plane[j + 1], n);
        else if (n > 0)
            state = vi_shift_right(state, vi_set1(n));
        state = vi_and(state, window_mask);
        const vi numbers = vi_and(vi_mul(state, vi_set1((int32_t)QK_FINE_FACTOR)), vi_set1((int32_t)QK_FINE_MASK));
        bytes = vi_add(bytes, vi_shift_left(sum_of_four(numbers), vi_set1(8 * i)));
        QK_OPAQUE(bytes);
    })
    return BYTES_SIGNED ? vi_xor(bytes, vi_set1((int32_t)0x80808080)) : bytes;
}

QK_INLINE void decode_fine(const uint8_t *planes, const qk_records *records, uint8_t *plain, const int bits)
{
    const vi window_mask = vi_set1((1 << records->window) - 1);
    const size_t chunks = records->block / CHUNK_K, chunk_bytes = (size_t)bits * NR * 4;
    for (size_t chunk = 0; chunk < chunks; chunk++, plain += CHUNK_K * NR) {
        const uint8_t *here = planes + chunk * chunk_bytes, *next = chunk + 1 < chunks ? here + chunk_bytes : planes;
        for (size_t column = 0; column < NR; column += LANES) {
            chunk_planes x = load_planes(here, column, bits);
            x.plane[bits] = plane_at(next, 0, column);
            QK_UNROLL4(s, CHUNK_STEPS / 2, {
                store_two_steps(plain + s * 8 * NR, column, fine_bytes(&x, 2 * s, window_mask, bits),
                                fine_bytes(&x, 2 * s + 1, window_mask, bits));
            })
        }
    }
}

#endif
