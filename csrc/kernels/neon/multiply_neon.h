/* The byte products of Advanced SIMD, in the source's order (kernels/neon/in_order.h). */
#ifndef QK_MULTIPLY_NEON_H
#define QK_MULTIPLY_NEON_H

#include "kernels/neon/in_order.h"

/* It pretends to read ab, so that ab keeps its register: gcc would copy a new value before the next addition. */
QK_INLINE void multiply_low(int16x8_t *ab_s16x8, int8x16_t a_s8x16, int8x16_t b_s8x16)
{
    __asm__ volatile("smull %0.8h, %1.8b, %2.8b" : "+w"(*ab_s16x8) : "w"(a_s8x16), "w"(b_s8x16));
}

QK_INLINE void add_low_product(int16x8_t *ab_s16x8, int8x16_t a_s8x16, int8x16_t b_s8x16)
{
    __asm__ volatile("smlal %0.8h, %1.8b, %2.8b" : "+w"(*ab_s16x8) : "w"(a_s8x16), "w"(b_s8x16));
}

QK_INLINE void add_high_product(int16x8_t *ab_s16x8, int8x16_t a_s8x16, int8x16_t b_s8x16)
{
    __asm__ volatile("smlal2 %0.8h, %1.16b, %2.16b" : "+w"(*ab_s16x8) : "w"(a_s8x16), "w"(b_s8x16));
}

QK_INLINE void add_pairs(int32x4_t *acc_s32x4, int16x8_t ab_s16x8)
{
    __asm__ volatile("sadalp %0.4s, %1.8h" : "+w"(*acc_s32x4) : "w"(ab_s16x8));
}

#endif
