/* The vpdpbusd tile with 512-bit vectors; formula, layout and bounds: kernels/gemm_vnni_body.h.
 *
 * Registers (12 x 32): 24 accumulators, 2 of B, 1 broadcast of A = 27 of 32. 24 products take 12 cycles on two ports,
 * more than the 14 loads (7 cycles) that feed them.
 */
#include "kernels/avx512vnni/simd_avx512vnni.h"

static inline vi vi_dpbusd(vi acc, vi a_u8, vi b_s8) { return _mm512_dpbusd_epi32(acc, a_u8, b_s8); }

enum { MR = 12 };

#include "kernels/gemm_vnni_body.h"

#define HEIGHTS(X)                                                                                           \
    X(1, 4) X(2, 4) X(3, 2) X(4, 2) X(5, 2) X(6, 2) X(7, 1) X(8, 1) X(9, 1) X(10, 1) X(11, 1) X(12, 1)
QK_DEFINE_GEMM_VNNI(avx512vnni, HEIGHTS)
