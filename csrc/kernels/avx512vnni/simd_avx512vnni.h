/* The vocabulary of the shared kernel bodies (kernels/affine_f32_body.h and its neighbors) in AVX-512 F, BW, DQ, VL:
 * sixteen lanes. vf holds floats, vi 32-bit integers; a _part load gives zeros past n and touches no byte there. */
#ifndef QK_SIMD_AVX512VNNI_H
#define QK_SIMD_AVX512VNNI_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__AVX512VNNI__)
#error "compile this folder with the flags of csrc/build.py"
#endif

enum { LANES = 16 };
typedef __m512 vf;
typedef __m512i vi;

static inline __mmask16 lanes_below(size_t n) { return (__mmask16)((1u << n) - 1); } /* n < 16 */

static inline vf vf_set1(float x) { return _mm512_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vf vf_load_part(const float *p, size_t n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline void vf_store_part(float *p, vf x, size_t n) { _mm512_mask_storeu_ps(p, lanes_below(n), x); }
static inline vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); } /* a * b + c, rounded once */
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a * b, rounded once */
static inline vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
/* qk_clamp_f32: vmaxps gives its second operand when neither is greater, so x keeps the sign of a zero. */
static inline vf vf_clamp(vf x, vf low, vf high) { return _mm512_min_ps(high, _mm512_max_ps(low, x)); }
static inline vi vf_is_nan(vf x) { return _mm512_movm_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q)); }
static inline vi vf_round(vf x) { return _mm512_cvtps_epi32(x); } /* half to even */
static inline vi vf_bits(vf x) { return _mm512_castps_si512(x); }
static inline vf vf_of_bits(vi x) { return _mm512_castsi512_ps(x); }
/* Lanes i and i ^ d exchanged; d, a power of two below LANES, is a constant. */
static inline __attribute__((always_inline)) vf vf_swap(vf x, const int d)
{
    return d == 1   ? _mm512_permute_ps(x, 0xb1)
           : d == 2 ? _mm512_permute_ps(x, 0x4e)
           : d == 4 ? _mm512_shuffle_f32x4(x, x, 0xb1)
                    : _mm512_shuffle_f32x4(x, x, 0x4e);
}
/* Of the lanes of a, then b, every other one. */
static inline vf vf_evens(vf a, vf b)
{
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
}
static inline vf vf_odds(vf a, vf b)
{
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
}

static inline vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
static inline vi vi_load_part(const int32_t *p, size_t n) { return _mm512_maskz_loadu_epi32(lanes_below(n), p); }
static inline void vi_store(int32_t *p, vi x) { _mm512_storeu_si512(p, x); }
static inline vf vi_to_vf(vi x) { return _mm512_cvtepi32_ps(x); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
static inline vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
static inline vi vi_and_or(vi x, vi mask, vi y) { return _mm512_ternarylogic_epi32(x, mask, y, 0xea); } /* x & mask | y */
static inline vi vi_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
static inline vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
static inline vi vi_greater(vi a, vi b) { return _mm512_movm_epi32(_mm512_cmpgt_epi32_mask(a, b)); } /* -1 */
static inline vi vi_equal(vi a, vi b) { return _mm512_movm_epi32(_mm512_cmpeq_epi32_mask(a, b)); }
static inline vi vi_select(vi mask, vi yes, vi no)
{
    return _mm512_mask_mov_epi32(no, _mm512_movepi32_mask(mask), yes);
}
static inline vi vi_shift_left(vi x, vi n) { return _mm512_sllv_epi32(x, n); }
static inline vi vi_shift_right(vi x, vi n) { return _mm512_srav_epi32(x, n); } /* arithmetic */
static inline int vi_any(vi x) { return _mm512_test_epi32_mask(x, x) != 0; }
static inline int32_t vi_largest(vi x) { return _mm512_reduce_max_epi32(x); }

/* floor((a * b + 2**30) / 2**31): 64-bit products of the even and of the odd lanes. */
static inline vi vi_rounding_high_mul(vi a, vi b)
{
    const __m512i half_s64x8 = _mm512_set1_epi64(1 << 30);
    __m512i even = _mm512_add_epi64(_mm512_mul_epi32(a, b), half_s64x8);
    __m512i odd = _mm512_add_epi64(
        _mm512_mul_epi32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32)), half_s64x8);
    /* Bits 31 to 62 of each sum: shifted down for the even lanes, up by one for the odd ones. */
    return _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 31), _mm512_slli_epi64(odd, 1));
}

static inline vi vi_load_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

static inline vi vi_load_bytes_part(const uint8_t *p, size_t n)
{
    return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes_below(n), p));
}

/* The low byte of each lane. */
static inline void vi_store_bytes(uint8_t *p, vi x) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(x)); }

static inline void vi_store_bytes_part(uint8_t *p, vi x, size_t n)
{
    _mm_mask_storeu_epi8(p, lanes_below(n), _mm512_cvtepi32_epi8(x));
}

#endif
