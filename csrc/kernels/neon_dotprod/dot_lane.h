/* The sdot of ARMv8.2's dot product extension, in the source's order (kernels/neon/in_order.h). */
#ifndef QK_DOT_LANE_H
#define QK_DOT_LANE_H

#include "kernels/neon/in_order.h"
#include "kernels/unroll.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "compile this folder with the flags of csrc/build.py"
#endif

/* acc += the products of a row's group of four bytes, a lane of A, and four columns. */
QK_INLINE void dot_lane(int32x4_t *acc_s32x4, int8x16_t b_s8x16, int8x16_t a_s8x16, const size_t lane)
{
    QK_UNROLL4(l, 4, {
        if (l == lane)
            __asm__ volatile("sdot %0.4s, %1.16b, %2.4b[%3]" : "+w"(*acc_s32x4) : "w"(b_s8x16), "w"(a_s8x16), "i"(l));
    })
}

#endif
