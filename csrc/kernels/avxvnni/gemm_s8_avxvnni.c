/* The vpdpbusd tile with 256-bit vectors, VEX-encoded; formula, layout and bounds: kernels/gemm_vnni_body.h.
 *
 * Registers (6 x 16): 12 accumulators, 2 of B, 1 broadcast of A = 15 of 16.
 */
#include "kernels/avx2/simd_avx2.h"

#if defined(QK_AVXVNNI_EVEX) /* the test build of csrc/build.py for CPUs with AVX512-VNNI only */
static inline vi vi_dpbusd(vi acc, vi a_u8, vi b_s8) { return _mm256_dpbusd_epi32(acc, a_u8, b_s8); }
#else
static inline vi vi_dpbusd(vi acc, vi a_u8, vi b_s8) { return _mm256_dpbusd_avx_epi32(acc, a_u8, b_s8); }
#endif

enum { MR = 6 };

#include "kernels/gemm_vnni_body.h"

#define HEIGHTS(X) X(1, 4) X(2, 3) X(3, 2) X(4, 1) X(5, 1) X(6, 1)
QK_DEFINE_GEMM_VNNI(avxvnni, HEIGHTS)
