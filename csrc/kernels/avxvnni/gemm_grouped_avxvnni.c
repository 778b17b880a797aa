/* Weights in blocks along k, int8 x uint8 codes -> int32 -> float32, by vpdpbusd on 256-bit vectors, VEX-encoded; loop,
 * layout and trick: kernels/gemm_grouped_body.h, kernels/grouped_broadcast.h.
 *
 * Registers (6 x 16): 12 accumulators, 2 of codes, 1 broadcast of A = 15 of 16.
 */
#include "kernels/avx2/grouped_avx2.h"

enum { MR = 6, NV = 2, FEW = 6, BYTE_ROWS = 6, SIGN_ROWS = 4, TABLE_ROWS = 4, TRELLIS_ROWS = 0 };
#define SUM_STEPS 0
#define widened(acc) (acc)

static inline vi add_codes(vi acc, vi codes_u8, vi a_s8, int small)
{
    (void)small;
#if defined(QK_AVXVNNI_EVEX) /* the test build of csrc/build.py for CPUs with AVX512-VNNI only */
    return _mm256_dpbusd_epi32(acc, codes_u8, a_s8);
#else
    return _mm256_dpbusd_avx_epi32(acc, codes_u8, a_s8);
#endif
}

#include "kernels/grouped_broadcast.h"
#include "kernels/gemm_grouped_body.h"

QK_DEFINE_GEMM_GROUPED(avxvnni)
