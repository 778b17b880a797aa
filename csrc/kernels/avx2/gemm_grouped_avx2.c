/* Weights in blocks along k, int8 x uint8 codes -> int32 -> float32, exact on AVX2; loop, layout and trick:
 * kernels/gemm_grouped_body.h, kernels/grouped_broadcast.h.
 *
 * Codes below 16 leave room in vpmaddubsw's int16 pair sums: 8 steps come to at most 8 * 2 * 15 * 127 = 30480, and
 * are then widened by vpmaddwd with ones. Codes of 8 bits have no such room: their nibbles are multiplied apart.
 * Registers: 6 x 16, plain records: 12 accumulators, 2 of codes, 1 broadcast of A, 1 product = 16. Decoding takes 2
 * more; codes of 8 bits 4 of nibbles, 2 of factors and 2 of products: 4 and 3 rows at once.
 */
#include "kernels/avx2/grouped_avx2.h"

enum { MR = 6, NV = 2, FEW = 4, BYTE_ROWS = 3, SIGN_ROWS = 3, TABLE_ROWS = 2, TRELLIS_ROWS = 0 };
#define SUM_STEPS 8

static inline vi widened(vi acc_s16) { return _mm256_madd_epi16(acc_s16, _mm256_set1_epi16(1)); }

static inline vi add_codes(vi acc, vi codes_u8, vi a_s8, int small)
{
    if (small)
        return _mm256_add_epi16(acc, _mm256_maddubs_epi16(codes_u8, a_s8));
    const vi low = _mm256_maddubs_epi16(codes_at(codes_u8, 0, 15), a_s8);
    const vi high = _mm256_maddubs_epi16(codes_at(codes_u8, 4, 15), a_s8);
    return vi_add(acc, vi_add(widened(low), _mm256_madd_epi16(high, _mm256_set1_epi16(16))));
}

#include "kernels/grouped_broadcast.h"
#include "kernels/gemm_grouped_body.h"

QK_DEFINE_GEMM_GROUPED(avx2)
