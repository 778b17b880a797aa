/* What the grouped kernels of the Arm ISAs share. */
#ifndef QK_GROUPED_NEON_H
#define QK_GROUPED_NEON_H

#include "kernels/grouped_codes.h"
#include "kernels/neon/in_order.h"
#include "kernels/neon/simd_neon.h"

enum { VECTOR = sizeof(vi), CHUNK = 32 /* values of k in a loop's body; blocks are multiples of it */ };

static inline vi load_codes(const uint8_t *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
static inline void store_codes(uint8_t *p, vi x) { vst1q_u8(p, vreinterpretq_u8_s32(x)); }

static inline vi codes_at(vi packed, const int shift, const int mask)
{
    uint8x16_t codes_u8x16 = vreinterpretq_u8_s32(packed);
    if (shift)
        codes_u8x16 = codes_u8x16 >> shift;
    if (mask != 0xff >> shift)
        codes_u8x16 = vandq_u8(codes_u8x16, vdupq_n_u8((uint8_t)mask));
    return vreinterpretq_s32_u8(codes_u8x16);
}

static inline vi zero_terms(vi zeros, vi terms) { return vi_mul(zeros, terms); }

static inline vf load_scales(const uint8_t *p, size_t bytes)
{
    if (bytes == 4)
        return vreinterpretq_f32_u8(vld1q_u8(p));
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

static inline vi load_zeros(const uint8_t *p) { return vi_load_bytes(p); }

/* Begin a chunk: what it loads is so many bytes from these two, and not from addresses of the compiler's own. */
QK_INLINE void begin_chunk(const int8_t **a, const uint8_t **codes, const size_t chunk_bytes, const coding in)
{
    if (!in.plain)
        prefetch_codes(*codes, chunk_bytes);
    __asm__ volatile("" : "+r"(*a), "+r"(*codes));
}

/* The codes of a step, of the packed ones of its line. */
QK_INLINE int8x16_t codes_of_step(int8x16_t packed, const size_t step, const coding in)
{
    if (in.bits == 8)
        return packed;
    const int shift = (int)step * in.bits % 8;
    return vreinterpretq_s8_s32(codes_at(vreinterpretq_s32_s8(packed), shift, (1 << in.bits) - 1));
}

#endif
