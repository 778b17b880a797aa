/* The vocabulary of the shared kernel bodies (kernels/affine_f32_body.h and its neighbors) in AVX2: eight lanes.
 * vf holds floats, vi 32-bit integers, vd half as many doubles; a _part load gives zeros past n and touches no byte
 * there. */
#ifndef QK_SIMD_AVX2_H
#define QK_SIMD_AVX2_H

#if !defined(__AVX2__)
#error "compile this folder with the flags of csrc/build.py"
#endif

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 8 };
typedef __m256 vf;
typedef __m256i vi;
typedef __m256d vd;

/* All ones in lanes < n. */
static inline vi lanes_below(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf vf_set1(float x) { return _mm256_set1_ps(x); }
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vf vf_load_part(const float *p, size_t n) { return _mm256_maskload_ps(p, lanes_below(n)); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline void vf_store_part(float *p, vf x, size_t n) { _mm256_maskstore_ps(p, lanes_below(n), x); }
static inline vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); } /* a * b + c, rounded once */
static inline vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a * b, rounded once */
static inline vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
/* qk_clamp_f32: vmaxps gives its second operand when neither is greater, so x keeps the sign of a zero. */
static inline vf vf_clamp(vf x, vf low, vf high) { return _mm256_min_ps(high, _mm256_max_ps(low, x)); }
static inline vi vf_is_nan(vf x) { return _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)); }
static inline vi vf_round(vf x) { return _mm256_cvtps_epi32(x); } /* half to even */
static inline vi vf_bits(vf x) { return _mm256_castps_si256(x); }
static inline vf vf_of_bits(vi x) { return _mm256_castsi256_ps(x); }
/* Lanes i and i ^ d exchanged; d, a power of two below LANES, is a constant. */
static inline __attribute__((always_inline)) vf vf_swap(vf x, const int d)
{
    return d == 1   ? _mm256_permute_ps(x, 0xb1)
           : d == 2 ? _mm256_permute_ps(x, 0x4e)
                    : _mm256_permute2f128_ps(x, x, 0x01);
}
/* Of the lanes of a, then b, every other one; the shuffle leaves them as a, b, a, b, two lanes each. */
static inline vf vf_evens(vf a, vf b)
{
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), 0xd8));
}
static inline vf vf_odds(vf a, vf b)
{
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xdd)), 0xd8));
}

static inline vd vd_load(const double *p) { return _mm256_loadu_pd(p); }
static inline void vd_store(double *p, vd x) { _mm256_storeu_pd(p, x); }
static inline vd vd_of_low(vf x) { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); } /* first half of the lanes */
static inline vd vd_of_high(vf x) { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
static inline vd vd_add(vd a, vd b) { return _mm256_add_pd(a, b); }
static inline vd vd_fma(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); } /* a * b + c, rounded once */

static inline vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline vi vi_load_part(const int32_t *p, size_t n) { return _mm256_maskload_epi32(p, lanes_below(n)); }
static inline void vi_store(int32_t *p, vi x) { _mm256_storeu_si256((__m256i *)p, x); }
static inline vf vi_to_vf(vi x) { return _mm256_cvtepi32_ps(x); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
static inline vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
static inline vi vi_and_or(vi x, vi mask, vi y) { return vi_or(vi_and(x, mask), y); }
static inline vi vi_min(vi a, vi b) { return _mm256_min_epi32(a, b); }
static inline vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
static inline vi vi_greater(vi a, vi b) { return _mm256_cmpgt_epi32(a, b); } /* -1 where true */
static inline vi vi_equal(vi a, vi b) { return _mm256_cmpeq_epi32(a, b); }
static inline vi vi_select(vi mask, vi yes, vi no) { return _mm256_blendv_epi8(no, yes, mask); }
static inline vi vi_shift_left(vi x, vi n) { return _mm256_sllv_epi32(x, n); }
static inline vi vi_shift_right(vi x, vi n) { return _mm256_srav_epi32(x, n); } /* arithmetic */
static inline int vi_any(vi x) { return !_mm256_testz_si256(x, x); }

static inline int32_t vi_largest(vi x)
{
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

/* floor((a * b + 2**30) / 2**31): 64-bit products of the even and of the odd lanes. */
static inline vi vi_rounding_high_mul(vi a, vi b)
{
    const __m256i half_s64x4 = _mm256_set1_epi64x(1 << 30);
    __m256i even = _mm256_add_epi64(_mm256_mul_epi32(a, b), half_s64x4);
    __m256i odd = _mm256_add_epi64(
        _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32)), half_s64x4);
    /* Bits 31 to 62 of each sum: shifted down for the even lanes, up by one for the odd ones. */
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 31), _mm256_slli_epi64(odd, 1), 0xaa);
}

static inline vi vi_load_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
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
    const __m256i low_byte = _mm256_set1_epi32(0xff);
    __m256i x_u16 = _mm256_and_si256(x, low_byte);
    x_u16 = _mm256_permute4x64_epi64(_mm256_packus_epi32(x_u16, x_u16), 0xd8);
    __m128i x_u16x8 = _mm256_castsi256_si128(x_u16);
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(x_u16x8, x_u16x8));
}

static inline void vi_store_bytes_part(uint8_t *p, vi x, size_t n)
{
    uint8_t bytes[LANES];
    vi_store_bytes(bytes, x);
    memcpy(p, bytes, n);
}

#endif
