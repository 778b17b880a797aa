/* For GEMM loops whose instructions keep the order of the source.
 *
 * An in-order core (Cortex-A55) stands still where a load comes shortly before its first use, and compilers order
 * for cores that look ahead. So the multiplies and loads of these loops are inline assembly, volatile: each register is
 * loaded a fixed number of multiplies before the first that needs it. Being changed in place, an accumulator is never
 * copied either, as gcc does with intrinsics in long blocks. Cores that look ahead lose nothing (bench/asm.py --arm).
 */
#ifndef QK_IN_ORDER_H
#define QK_IN_ORDER_H

#include <arm_neon.h>

#include "kernels.h"

/* 16 bytes, loaded at this place of the order. */
QK_INLINE int8x16_t load_here(const int8_t *p)
{
    int8x16_t x_s8x16;
    __asm__ volatile("ldr %q0, %1" : "=w"(x_s8x16) : "m"(*(const int8x16_t *)p));
    return x_s8x16;
}

/* Where a tile is in its two panels, and how many blocks are left. */
typedef struct cursor {
    const int8_t *a, *b;
    size_t blocks;
} cursor;

/* The first step that a tile asks for; its panels take so many bytes a step. */
QK_INLINE cursor first_step(const qk_gemm_tile *tile, size_t a_bytes, size_t b_bytes)
{
    return (cursor){(const int8_t *)tile->a + tile->first_step * a_bytes,
                    (const int8_t *)tile->b + tile->first_step * b_bytes, 0};
}

/* Four sums to place `at`. */
static inline void store_sums(const qk_gemm_tile *tile, size_t at, int32x4_t sums)
{
    int32_t *place = tile->sums + at;
    vst1q_s32(place, tile->accumulate ? vaddq_s32(vld1q_s32(place), sums) : sums);
}

/* To the next block, after the last load of this one: between multiplies, not at the end of the loop where the branch
 * would wait for it. */
QK_INLINE void advance_here(cursor *at, size_t a_bytes, size_t b_bytes)
{
    at->a += a_bytes;
    at->b += b_bytes;
    at->blocks--;
    __asm__ volatile("" : "+r"(at->a), "+r"(at->b), "+r"(at->blocks));
}

#endif
