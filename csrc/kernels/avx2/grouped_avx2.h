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

#endif
