/* Weights in blocks along k, int8 x uint8 codes -> int32 -> float32, by vpdpbusd on 512-bit vectors; loop, layout
 * and trick: kernels/gemm_grouped_body.h, kernels/grouped_broadcast.h.
 *
 * Registers (6 x 64): 24 accumulators, 4 of codes, 1 broadcast of A, and of packed records the mask.
 */
#include "kernels/avx512vnni/simd_avx512vnni.h"

enum { MR = 6, NV = 4, FEW = 6, BYTE_ROWS = 6 };
#define SUM_STEPS 0

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

#include "kernels/grouped_broadcast.h"
#include "kernels/gemm_grouped_body.h"

QK_DEFINE_GEMM_GROUPED(avx512vnni)
