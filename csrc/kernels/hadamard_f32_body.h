/* The Walsh-Hadamard transform, once for all SIMD ISAs (see affine_f32_body.h); RADIX is how many vectors a pass keeps
 * in registers, 8 or 16. Order of operations: qk_hadamard_f32_type.
 *
 * A pass through memory takes several distances, the first one those below a vector, too:
 *
 *      block 4096, 16 lanes, RADIX 16:     first pass      1, 2, 4, 8 in a vector, 16 ... 128 across 16 neighbors
 *                                          further pass    256 ... 2048 across 16 vectors 256 values apart
 *
 * Each part of a long block is finished before the next is begun, so that all passes but the last few find their values
 * in the L1 cache. The passes of blocks that are longer than RADIX first passes take 8 vectors at most: those share a
 * set of the cache, being a multiple of its size apart.
 *
 * In a vector, lane i meets lane i ^ d:   y = fma(x, sign, swapped x), sign -1 where i & d: the product is exact, so
 * that y is rounded as a sum or difference is. That is a shuffle and an operation for each distance.
 *
 * Registers: RADIX values, log2(LANES) signs, one temporary. */
#ifndef QK_HADAMARD_F32_BODY_H
#define QK_HADAMARD_F32_BODY_H

#include "kernels.h"
#include "kernels/hadamard_plain.h"
#include "kernels/unroll.h"

enum { SPAN = RADIX * LANES }; /* values of the first pass */

/* By the distance's logarithm; an ISA takes as many lanes as it has. */
static const float lane_signs[4][16] = {
    {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
    {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
    {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
    {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1},
};

QK_INLINE vf transform_lanes(vf x)
{
    QK_UNROLL4(log, 4, if (1 << log < LANES) x = vf_fma(x, vf_load(lane_signs[log]), vf_swap(x, 1 << log));)
    return x;
}

QK_INLINE void butterfly(vf *a, vf *b)
{
    const vf sum = vf_add(*a, *b);
    *b = vf_sub(*a, *b);
    *a = sum;
}

/* Distances of 1, 2, 4, ... vectors below count. */
QK_INLINE void transform_vectors(vf *v, const int count)
{
    QK_UNROLL4(log, 4, if (1 << log < count) {
        QK_UNROLL16(i, count, if (!(i >> log & 1)) butterfly(&v[i], &v[i + (1 << log)]);)
    })
}

/* The first pass over n values: each `count` vectors that follow each other. A factor that is NULL is none. */
QK_INLINE void first_pass(const float *x, size_t n, const int count, const float *before, const float *after, float *y)
{
    for (size_t j = 0; j < n; j += (size_t)count * LANES) {
        vf v[16];
        QK_UNROLL16(i, count, v[i] = vf_load(x + j + i * LANES);)
        if (before) {
            QK_UNROLL16(i, count, v[i] = vf_mul(v[i], vf_load(before + j + i * LANES));)
        }
        QK_UNROLL16(i, count, v[i] = transform_lanes(v[i]);)
        transform_vectors(v, count);
        if (after) {
            QK_UNROLL16(i, count, v[i] = vf_mul(v[i], vf_load(after + j + i * LANES));)
        }
        QK_UNROLL16(i, count, vf_store(y + j + i * LANES, v[i]);)
    }
}

/* A further pass: `count` transformed parts of `part` values each become one. */
QK_INLINE void further_pass(float *y, const size_t part, const int count, const float *after)
{
    for (size_t j = 0; j < part; j += LANES) {
        vf v[16];
        QK_UNROLL16(i, count, v[i] = vf_load(y + j + i * part);)
        transform_vectors(v, count);
        if (after) {
            QK_UNROLL16(i, count, v[i] = vf_mul(v[i], vf_load(after + j + i * part));)
        }
        QK_UNROLL16(i, count, vf_store(y + j + i * part, v[i]);)
    }
}

/* The first pass: all that blocks of up to SPAN values need. */
static void short_blocks(const float *x, size_t n, size_t block, const float *before, const float *after, float *y)
{
    switch (block / LANES) {
    case 1: first_pass(x, n, 1, before, after, y); return;
    case 2: first_pass(x, n, 2, before, after, y); return;
    case 4: first_pass(x, n, 4, before, after, y); return;
    case 8: first_pass(x, n, 8, before, after, y); return;
    default:
        if (RADIX > 8)
            first_pass(x, n, RADIX, before, after, y);
    }
}

/* One block of more than SPAN values. */
static void long_block(const float *x, size_t n, const float *before, const float *after, float *y)
{
    size_t count = n / SPAN;
    if (count > RADIX)
        for (count /= RADIX; count > 8;)
            count /= 8;
    const size_t part = n / count;
    if (part == SPAN)
        short_blocks(x, n, SPAN, before, NULL, y);
    else
        for (size_t i = 0; i < n; i += part)
            long_block(x + i, part, before ? before + i : NULL, NULL, y + i);
    switch (count) {
    case 2: further_pass(y, part, 2, after); return;
    case 4: further_pass(y, part, 4, after); return;
    case 8: further_pass(y, part, 8, after); return;
    default:
        if (RADIX > 8) /* a part is SPAN then, a constant: more than 8 addresses that vary find no registers */
            further_pass(y, SPAN, RADIX, after);
    }
}

static inline void hadamard(const float *x, size_t n, size_t block, const float *factors, int after, float *y)
{
    if (block < LANES)
        hadamard_plain(x, n, block, factors, after, y);
    else if (block <= SPAN)
        short_blocks(x, n, block, after ? NULL : factors, after ? factors : NULL, y);
    else
        for (size_t i = 0; i < n; i += block)
            long_block(x + i, block, after ? NULL : factors + i, after ? factors + i : NULL, y + i);
}

#define QK_DEFINE_HADAMARD(isa)                                                                              \
    void qk_hadamard_f32_##isa(const float *x, size_t n, size_t block, const float *factors, int after,      \
                               float *y)                                                                     \
    {                                                                                                        \
        hadamard(x, n, block, factors, after, y);                                                            \
    }

#endif
