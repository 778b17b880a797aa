/* acc[m][n] += a[m][k] * b[k][n], int8 x int8 -> int32, exact on AVX2; loop, layout and tails:
 * kernels/gemm_broadcast_body.h.
 *
 * Trick: vpmaddubsw, the obvious byte multiply, saturates its int16 pair sums (255 * 127 * 2 > 32767), so both sides
 * are widened to int16 and multiplied by vpmaddwd, whose int32 pair sums cannot overflow (2 * 128 * 128). A is widened
 * once, while packing; B stays in bytes, which halves its traffic, and is widened by vpmovsxbw as it is loaded, once
 * for all the rows of the tile.
 * Registers (6 x 16): 12 accumulators, 2 of B, 1 broadcast of A, 1 product = 16. The additions have a latency of one
 * cycle, so that even one row needs no second set of sums.
 * Overflow: acc wraps modulo 2**32; it is exact for k <= 131071, beyond which the driver splits k.
 */
#include "kernels/avx2/simd_avx2.h"

enum { MR = 6, NV = 2, N_UNIT = 16, KR = 2, A_BYTES = 2, A_SIGNED = 1, PEAK_SUMS = 8 };

static inline vi load_b(const uint8_t *b) { return _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)b)); }

static inline vi multiply_add(vi acc, vi a_s16, vi b_s16) { return vi_add(acc, _mm256_madd_epi16(a_s16, b_s16)); }

#include "kernels/gemm_broadcast_body.h"

#define TILES(X) X(1, 2, 1) X(2, 2, 1) X(3, 2, 1) X(4, 2, 1) X(5, 2, 1) X(6, 2, 1)
QK_DEFINE_GEMM_BROADCAST(avx2, TILES)
