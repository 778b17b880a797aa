/* acc[m][n] += a[m][k] * b[k][n], uint8 x int8 -> int32, by vpdpbusd on 512-bit vectors; loop, layout and tails:
 * kernels/gemm_broadcast_body.h.
 *
 * Trick: vpdpbusd wants its first operand unsigned. Signed A is flipped by xor 0x80 while packing, which adds 128 to
 * every value and to the zero point; the driver takes 128 * column_sums off again.
 * Registers (6 x 64): 24 accumulators, 4 of B, 1 broadcast of A = 29 of 32. 24 products take 12 cycles on two ports and
 * 10 loads 5 cycles. A 12 x 32 tile has 14 loads: on Ice Lake it stays at 0.92 of the peak where this one has 0.99.
 * Overflow: vpdpbusd (not vpdpbusds) wraps modulo 2**32; raw sums are exact for k <= 65793 (255 * 128 * k < 2**31),
 * beyond which the driver splits k.
 */
#include "kernels/avx512vnni/simd_avx512vnni.h"

enum { MR = 6, NV = 4, N_UNIT = LANES, KR = 4, A_BYTES = 1, A_SIGNED = 0, PEAK_SUMS = 16 };

static inline vi load_b(const uint8_t *b) { return _mm512_load_si512(b); }
static inline vi multiply_add(vi acc, vi a_u8, vi b_s8) { return _mm512_dpbusd_epi32(acc, a_u8, b_s8); }

#include "kernels/gemm_broadcast_body.h"

#define TILES(X)                                                                                             \
    X(1, 4, 4) X(2, 4, 2) X(3, 4, 2) X(4, 4, 1) X(5, 4, 1) X(6, 4, 1)                                        \
    X(1, 3, 4) X(2, 3, 2) X(3, 3, 2) X(4, 3, 1) X(5, 3, 1) X(6, 3, 1)                                        \
    X(1, 2, 4) X(2, 2, 4) X(3, 2, 2) X(4, 2, 2) X(5, 2, 1) X(6, 2, 1)                                        \
    X(1, 1, 4) X(2, 1, 4) X(3, 1, 4) X(4, 1, 2) X(5, 1, 2) X(6, 1, 2)
QK_DEFINE_GEMM_BROADCAST(avx512vnni, TILES)
