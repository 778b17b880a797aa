/* The product of matrices of signs; formula and layout: kernels/gemm_b1_body.h. cnt counts the ones of bytes as fast as
 * eor works, so that carries would cost more than they save. A byte takes 16 a pair of words: 7 steps of two pairs
 * until it is full. */
#include "kernels/neon/simd_neon.h"

enum { MR = 4, NV = 2 };
#define RUNNING 0
#define FLUSH 7

static inline vi add_counts(vi part_u8x16, vi x)
{
    return vreinterpretq_s32_u8(vaddq_u8(vreinterpretq_u8_s32(part_u8x16), vcntq_u8(vreinterpretq_u8_s32(x))));
}

static inline vi lane_sums(vi part_u8x16)
{
    return vreinterpretq_s32_u32(vpaddlq_u16(vpaddlq_u8(vreinterpretq_u8_s32(part_u8x16))));
}

#include "kernels/gemm_b1_body.h"

QK_DEFINE_GEMM_B1(neon)
