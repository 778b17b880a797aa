/* The product of gemm_s8_avx512vnni.c (trick and overflow are told there) by vpdpbusd on 256-bit vectors, VEX-encoded;
 * loop, layout and tails: kernels/gemm_broadcast_body.h.
 *
 * Registers (6 x 16): 12 accumulators, 2 of B, 1 broadcast of A = 15 of 16.
 */
#include "kernels/avx2/simd_avx2.h"

enum { MR = 6, NV = 2, N_UNIT = 16, KR = 4, A_BYTES = 1, A_SIGNED = 0, PEAK_SUMS = 12 };

static inline vi load_b(const uint8_t *b) { return _mm256_load_si256((const __m256i *)b); }

#if defined(QK_AVXVNNI_EVEX) /* the test build of csrc/build.py for CPUs with AVX512-VNNI only */
static inline vi multiply_add(vi acc, vi a_u8, vi b_s8) { return _mm256_dpbusd_epi32(acc, a_u8, b_s8); }
#else
static inline vi multiply_add(vi acc, vi a_u8, vi b_s8) { return _mm256_dpbusd_avx_epi32(acc, a_u8, b_s8); }
#endif

#include "kernels/gemm_broadcast_body.h"

#define TILES(X) X(1, 2, 4) X(2, 2, 2) X(3, 2, 2) X(4, 2, 1) X(5, 2, 1) X(6, 2, 1)
QK_DEFINE_GEMM_BROADCAST(avxvnni, TILES)
