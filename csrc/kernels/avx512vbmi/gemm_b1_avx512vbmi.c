/* The product of matrices of signs by vpopcntd; formula and layout: kernels/gemm_b1_body.h.
 *
 * Bound: two words a lane cost two vpxord, one vpternlogd (the carry, 0x74), vpopcntd and vpaddd. These 5 operations on
 * two ports are 1024 products: 410 a cycle, 3.2 times the 128 of int8. Counting every word instead takes 3 for 512: 341.
 * More levels of adders cost what they save: two operations each, for a vpopcntd and a vpaddd.
 * Registers (4 x 32): 8 sums, 8 sum bits s, 2 broadcasts of A; B is an operand in memory.
 * Measured on an Ice Lake, in turns with the peak loop of int8: 3.7 times its products a second at 256 words a row,
 * 3.55 at 32 (k = 1024). That is beyond the bound for equal clocks, so that they must differ. A tile of 6 x 32 is 2 %
 * faster at 256 words, and 9 % slower at 32. */
#include "kernels/avx512vnni/simd_avx512vnni.h"

enum { MR = 4, NV = 2 };
#define RUNNING 1
#define FLUSH SIZE_MAX

static inline vi carry(vi before, vi p1, vi p2) { return _mm512_ternarylogic_epi32(before, p1, p2, 0x74); }
static inline vi add_counts(vi part, vi x) { return vi_add(part, _mm512_popcnt_epi32(x)); }
static inline vi lane_sums(vi part) { return part; }

#include "kernels/gemm_b1_body.h"

QK_DEFINE_GEMM_B1(avx512vbmi)
