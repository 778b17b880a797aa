#include "kernels/avx512vnni/simd_avx512vnni.h"

enum { MR = 4, NV = 2 };
#define RUNNING 1
#define FLUSH SIZE_MAX

static inline vi carry(vi before, vi p1, vi p2) { return _mm512_ternarylogic_epi32(before, p1, p2, 0x74); }
static inline vi add_counts(vi part, vi x) { return vi_add(part, _mm512_popcnt_epi32(x)); }
static inline vi lane_sums(vi part) { return part; }

#include "kernels/gemm_b1_body.h"

QK_DEFINE_GEMM_B1(avx512vbmi)
