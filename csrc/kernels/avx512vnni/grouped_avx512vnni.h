/* What the grouped kernels of avx512vnni and avx512vbmi share. */
#ifndef QK_GROUPED_AVX512VNNI_H
#define QK_GROUPED_AVX512VNNI_H

#include "kernels/avx512vnni/simd_avx512vnni.h"

enum { MR = 6, NV = 4, FEW = 6, BYTE_ROWS = 6, SIGN_ROWS = 4, TABLE_ROWS = 4 };
#define SUM_STEPS 0
#define widened(acc) (acc)

static inline vi load_codes(const uint8_t *p) { return _mm512_load_si512(p); }
static inline void store_codes(uint8_t *p, vi x) { _mm512_store_si512(p, x); }

static inline vi codes_at(vi packed, int shift, int mask)
{
    return _mm512_and_si512(shift ? _mm512_srli_epi16(packed, (unsigned)shift) : packed, _mm512_set1_epi8((char)mask));
}

static inline vi add_codes(vi acc, vi codes_u8, vi a_s8, int small)
{
    (void)small;
    return _mm512_dpbusd_epi32(acc, codes_u8, a_s8);
}

static inline vi zero_terms(vi zeros, vi terms) { return _mm512_madd_epi16(zeros, terms); }

static inline vf load_scales(const uint8_t *p, size_t bytes)
{
    return bytes == 2 ? _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)p)) : _mm512_load_ps(p);
}

static inline vi load_zeros(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)p)); }

/* Codes below 16. */
static inline vi look_up(const uint8_t *table, vi codes)
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)table)), codes);
}

/* In the tables of each lane's first column, second one, ... */
static inline vi look_up_by_row(const uint8_t *tables, vi codes)
{
    vi levels = _mm512_maskz_shuffle_epi8(0x000f000f000f000f, _mm512_load_si512(tables), codes);
    levels = _mm512_mask_shuffle_epi8(levels, 0x00f000f000f000f0, _mm512_load_si512(tables + 64), codes);
    levels = _mm512_mask_shuffle_epi8(levels, 0x0f000f000f000f00, _mm512_load_si512(tables + 128), codes);
    return _mm512_mask_shuffle_epi8(levels, 0xf000f000f000f000, _mm512_load_si512(tables + 192), codes);
}

static inline vi select_bits(int mask, vi a, vi b)
{
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8((char)mask), a, b, 0xca);
}

static inline vi bytes_shifted(vi x, int n) { return _mm512_srli_epi16(x, (unsigned)n); }
static inline vi next_bytes(vi x) { return _mm512_ror_epi32(x, 8); }

static inline vi shifted_pair(vi low, vi high, int n)
{
    return vi_or(_mm512_srli_epi32(low, (unsigned)n), _mm512_slli_epi32(high, (unsigned)(32 - n)));
}

static inline vi sum_of_four(vi x) { return _mm512_dpbusd_epi32(vi_set1(0), x, _mm512_set1_epi8(1)); }

#endif
