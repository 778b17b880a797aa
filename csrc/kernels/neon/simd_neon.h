/* The vocabulary of the shared kernel bodies (kernels/affine_f32_body.h and its neighbors) in Advanced SIMD: four
 * lanes. vf holds floats, vi 32-bit integers, vd half as many doubles; a _part load gives zeros past n and touches no
 * byte there. */
#ifndef QK_SIMD_NEON_H
#define QK_SIMD_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 4 };
typedef float32x4_t vf;
typedef int32x4_t vi;
typedef float64x2_t vd;

static inline vf vf_set1(float x) { return vdupq_n_f32(x); }
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline vf vf_load_part(const float *p, size_t n)
{
    float lanes[LANES] = {0};
    memcpy(lanes, p, n * sizeof *p);
    return vf_load(lanes);
}
static inline void vf_store(float *p, vf x) { vst1q_f32(p, x); }
static inline void vf_store_part(float *p, vf x, size_t n)
{
    float lanes[LANES];
    vf_store(lanes, x);
    memcpy(p, lanes, n * sizeof *p);
}
static inline vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); } /* a * b + c, rounded once */
static inline vf vf_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); } /* c - a * b, rounded once */
static inline vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
static inline vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
/* qk_clamp_f32: compare and select, because fmax(-0.0, 0.0) is 0.0 where the scalar function keeps -0.0. */
static inline vf vf_clamp(vf x, vf low, vf high)
{
    x = vbslq_f32(vcltq_f32(x, low), low, x);
    return vbslq_f32(vcgtq_f32(x, high), high, x);
}
static inline vi vf_is_nan(vf x) { return vreinterpretq_s32_u32(vmvnq_u32(vceqq_f32(x, x))); }
static inline vi vf_round(vf x) { return vcvtnq_s32_f32(x); } /* half to even */
static inline vi vf_bits(vf x) { return vreinterpretq_s32_f32(x); }
static inline vf vf_of_bits(vi x) { return vreinterpretq_f32_s32(x); }
/* Lanes i and i ^ d exchanged; d is 1 or 2, a constant. */
static inline vf vf_swap(vf x, const int d) { return d == 1 ? vrev64q_f32(x) : vextq_f32(x, x, 2); }
/* Of the lanes of a, then b, every other one. */
static inline vf vf_evens(vf a, vf b) { return vuzp1q_f32(a, b); }
static inline vf vf_odds(vf a, vf b) { return vuzp2q_f32(a, b); }

static inline vd vd_load(const double *p) { return vld1q_f64(p); }
static inline void vd_store(double *p, vd x) { vst1q_f64(p, x); }
static inline vd vd_of_low(vf x) { return vcvt_f64_f32(vget_low_f32(x)); } /* first half of the lanes */
static inline vd vd_of_high(vf x) { return vcvt_high_f64_f32(x); }
static inline vd vd_add(vd a, vd b) { return vaddq_f64(a, b); }
static inline vd vd_fma(vd a, vd b, vd c) { return vfmaq_f64(c, a, b); } /* a * b + c, rounded once */

static inline vi vi_set1(int32_t x) { return vdupq_n_s32(x); }
static inline vi vi_load(const int32_t *p) { return vld1q_s32(p); }
static inline vi vi_load_part(const int32_t *p, size_t n)
{
    int32_t lanes[LANES] = {0};
    memcpy(lanes, p, n * sizeof *p);
    return vi_load(lanes);
}
static inline void vi_store(int32_t *p, vi x) { vst1q_s32(p, x); }
static inline vf vi_to_vf(vi x) { return vcvtq_f32_s32(x); }
static inline vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
static inline vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
static inline vi vi_mul(vi a, vi b) { return vmulq_s32(a, b); }
static inline vi vi_and(vi a, vi b) { return vandq_s32(a, b); }
static inline vi vi_or(vi a, vi b) { return vorrq_s32(a, b); }
static inline vi vi_xor(vi a, vi b) { return veorq_s32(a, b); }
static inline vi vi_and_or(vi x, vi mask, vi y) { return vi_or(vi_and(x, mask), y); }
static inline vi vi_min(vi a, vi b) { return vminq_s32(a, b); }
static inline vi vi_max(vi a, vi b) { return vmaxq_s32(a, b); }
static inline vi vi_greater(vi a, vi b) { return vreinterpretq_s32_u32(vcgtq_s32(a, b)); } /* -1 where true */
static inline vi vi_equal(vi a, vi b) { return vreinterpretq_s32_u32(vceqq_s32(a, b)); }
static inline vi vi_select(vi mask, vi yes, vi no) { return vbslq_s32(vreinterpretq_u32_s32(mask), yes, no); }
static inline vi vi_shift_left(vi x, vi n) { return vshlq_s32(x, n); }
static inline vi vi_shift_right(vi x, vi n) { return vshlq_s32(x, vnegq_s32(n)); } /* arithmetic */
static inline int vi_any(vi x) { return vmaxvq_u32(vreinterpretq_u32_s32(x)) != 0; }
static inline int32_t vi_largest(vi x) { return vmaxvq_s32(x); }

/* floor((a * b + 2**30) / 2**31) is what sqrdmulh computes: (2 * a * b + 2**31) >> 32; it saturates only where both
 * are INT32_MIN, and b >= 0. */
static inline vi vi_rounding_high_mul(vi a, vi b) { return vqrdmulhq_s32(a, b); }

static inline vi vi_load_bytes(const uint8_t *p)
{
    uint32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes)))));
}

static inline vi vi_load_bytes_part(const uint8_t *p, size_t n)
{
    uint8_t bytes[LANES] = {0};
    memcpy(bytes, p, n);
    return vi_load_bytes(bytes);
}

/* The low byte of each lane. */
static inline void vi_store_bytes(uint8_t *p, vi x)
{
    int16x4_t x_s16x4 = vmovn_s32(x);
    int8x8_t x_s8x8 = vmovn_s16(vcombine_s16(x_s16x4, x_s16x4));
    int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(x_s8x8), 0);
    memcpy(p, &bytes, sizeof bytes);
}

static inline void vi_store_bytes_part(uint8_t *p, vi x, size_t n)
{
    uint8_t bytes[LANES];
    vi_store_bytes(bytes, x);
    memcpy(p, bytes, n);
}

#endif
