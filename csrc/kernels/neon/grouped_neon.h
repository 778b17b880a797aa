/* What the grouped kernels of the Arm ISAs share; NR and KR are defined before. */
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

/* Codes below 16; any other finds 0. */
static inline vi look_up(const uint8_t *table, vi codes)
{
    return vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(table), vreinterpretq_u8_s32(codes)));
}

/* In the table of the first column of a vector, of the second one, ... */
static inline vi look_up_by_row(const uint8_t *tables, vi codes)
{
    uint8_t others[2 * VECTOR]; /* KR zeros among bytes that make codes find 0 */
    for (size_t i = 0; i < sizeof others; i++)
        others[i] = i / KR == VECTOR / KR ? 0 : 0xff;
    vi levels = vi_set1(0);
    for (size_t column = 0; column < VECTOR / KR; column++)
        levels = vi_or(levels, look_up(tables + column * QK_TABLE,
                                       vi_or(codes, load_codes(others + VECTOR - column * KR))));
    return levels;
}

static inline vi look_up_state(const uint8_t *levels, vi state)
{
    const uint8x16_t low6_u8x16 = vandq_u8(vreinterpretq_u8_s32(state), vdupq_n_u8(QK_STATES - 1));
    return vreinterpretq_s32_u8(vqtbl4q_u8(vld1q_u8_x4(levels), low6_u8x16));
}

static inline vi select_bits(int mask, vi a, vi b)
{
    return vreinterpretq_s32_u8(vbslq_u8(vdupq_n_u8((uint8_t)mask), vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b)));
}

static inline vi bytes_shifted(vi x, const int n) { return vreinterpretq_s32_u8(vreinterpretq_u8_s32(x) >> n); }

static inline vi shifted_pair(vi low, vi high, const int n)
{
    return vreinterpretq_s32_u32(vreinterpretq_u32_s32(low) >> n | vreinterpretq_u32_s32(high) << (32 - n));
}

static inline vi next_bytes(vi x) { return shifted_pair(x, x, 8); }

static inline vi sum_of_four(vi x)
{
    return vreinterpretq_s32_u32(vpaddlq_u16(vpaddlq_u8(vreinterpretq_u8_s32(x))));
}

/* Four bytes of each of four columns, of k = 8 s and of k = 8 s + 4. */
QK_INLINE void store_two_steps(uint8_t *steps, size_t column, vi even, vi odd)
{
    store_codes(steps + column * KR, KR == 4 ? even : vzip1q_s32(even, odd));
    store_codes(steps + (KR == 4 ? NR + column : column + 2) * KR, KR == 4 ? odd : vzip2q_s32(even, odd));
}

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
    const vi codes = codes_at(vreinterpretq_s32_s8(packed), shift, (1 << in.bits) - 1);
    return vreinterpretq_s8_s32(in.table ? look_up(in.levels, codes) : codes);
}

#endif
