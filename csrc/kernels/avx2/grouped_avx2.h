/* What the grouped kernels of avx2 and avxvnni share. */
#ifndef QK_GROUPED_AVX2_H
#define QK_GROUPED_AVX2_H

#include "kernels/avx2/simd_avx2.h"

static inline vi load_codes(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void store_codes(uint8_t *p, vi x) { _mm256_store_si256((__m256i *)p, x); }

static inline vi codes_at(vi packed, int shift, int mask)
{
    return _mm256_and_si256(shift ? _mm256_srli_epi16(packed, shift) : packed, _mm256_set1_epi8((char)mask));
}

static inline vi zero_terms(vi zeros, vi terms) { return _mm256_madd_epi16(zeros, terms); }

static inline vf load_scales(const uint8_t *p, size_t bytes)
{
    return bytes == 2 ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)) : _mm256_loadu_ps((const float *)p);
}

static inline vi load_zeros(const uint8_t *p) { return vi_load_bytes(p); }

/* Codes below 16. */
static inline vi look_up(const uint8_t *table, vi codes)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)table)), codes);
}

/* In the tables of each lane's first column, second one, ...; a code with its highest bit set finds 0. */
static inline vi look_up_by_row(const uint8_t *tables, vi codes)
{
    vi levels = vi_set1(0), others = _mm256_setr_epi32(0, -1, -1, -1, 0, -1, -1, -1);
    for (int column = 0; column < 4; column++) {
        const vi table = _mm256_load_si256((const __m256i *)(tables + column * 32));
        levels = vi_or(levels, _mm256_shuffle_epi8(table, vi_or(codes, others)));
        others = _mm256_shuffle_epi32(others, 0x93); /* one column on */
    }
    return levels;
}

/* 64 levels are four tables of 16; bits 4 and 5 of a state, moved to the highest place, choose. */
static inline vi look_up_state(const uint8_t *levels, vi state)
{
    const vi low = _mm256_and_si256(state, _mm256_set1_epi8(15));
    const vi bit4 = _mm256_slli_epi16(state, 3), bit5 = _mm256_slli_epi16(state, 2);
    const vi lower = _mm256_blendv_epi8(look_up(levels, low), look_up(levels + 16, low), bit4);
    const vi upper = _mm256_blendv_epi8(look_up(levels + 32, low), look_up(levels + 48, low), bit4);
    return _mm256_blendv_epi8(lower, upper, bit5);
}

static inline vi select_bits(int mask, vi a, vi b)
{
    const vi bits = _mm256_set1_epi8((char)mask);
    return vi_or(vi_and(a, bits), _mm256_andnot_si256(bits, b));
}

static inline vi bytes_shifted(vi x, int n) { return _mm256_srli_epi16(x, n); }
static inline vi next_bytes(vi x) { return vi_or(_mm256_srli_epi32(x, 8), _mm256_slli_epi32(x, 24)); }

static inline vi shifted_pair(vi low, vi high, int n)
{
    return vi_or(_mm256_srli_epi32(low, n), _mm256_slli_epi32(high, 32 - n));
}

/* Each below 64: no pair overflows int16. */
static inline vi sum_of_four(vi x)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(x, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
}

#endif
