/* The product of matrices of signs without VPOPCNTDQ; formula and layout: kernels/gemm_b1_body.h. vpshufb counts the
 * ones of nibbles, and vpdpbusd adds the four bytes of a lane to its sum. */
#include "kernels/avx512vnni/simd_avx512vnni.h"

enum { MR = 4, NV = 2 };
#define RUNNING 1
#define FLUSH SIZE_MAX /* the sums are 32 bits wide */

static inline vi carry(vi before, vi p1, vi p2) { return _mm512_ternarylogic_epi32(before, p1, p2, 0x74); }

static inline vi add_counts(vi part, vi x)
{
    const vi ones_of_nibble = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const vi nibble = _mm512_set1_epi8(15);
    vi low_u8x64 = _mm512_shuffle_epi8(ones_of_nibble, vi_and(x, nibble));
    vi high_u8x64 = _mm512_shuffle_epi8(ones_of_nibble, vi_and(_mm512_srli_epi32(x, 4), nibble));
    return _mm512_dpbusd_epi32(part, _mm512_add_epi8(low_u8x64, high_u8x64), _mm512_set1_epi8(1));
}

static inline vi lane_sums(vi part) { return part; }

#include "kernels/gemm_b1_body.h"

QK_DEFINE_GEMM_B1(avx512vnni)
