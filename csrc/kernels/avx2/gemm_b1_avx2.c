/* The product of matrices of signs; formula and layout: kernels/gemm_b1_body.h. vpshufb counts the ones of nibbles. A
 * byte takes 8 a pair of words: 15 steps of two pairs until it is full. */
#include "kernels/avx2/simd_avx2.h"

enum { MR = 2, NV = 2 };
#define RUNNING 1
#define FLUSH 15

/* The majority of s, s ^ p1 and p1 ^ p2. */
static inline vi carry(vi s, vi p1, vi p2)
{
    return vi_or(_mm256_andnot_si256(vi_and(p1, p2), s), _mm256_andnot_si256(p2, p1));
}

static inline vi add_counts(vi part_u8x32, vi x)
{
    const vi ones_of_nibble =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const vi nibble = _mm256_set1_epi8(15);
    vi low_u8x32 = _mm256_shuffle_epi8(ones_of_nibble, vi_and(x, nibble));
    vi high_u8x32 = _mm256_shuffle_epi8(ones_of_nibble, vi_and(_mm256_srli_epi32(x, 4), nibble));
    return _mm256_add_epi8(part_u8x32, _mm256_add_epi8(low_u8x32, high_u8x32));
}

static inline vi lane_sums(vi part_u8x32)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(part_u8x32, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
}

#include "kernels/gemm_b1_body.h"

QK_DEFINE_GEMM_B1(avx2)
