/* Weights in blocks along k, int8 x uint8 codes -> int32 -> float32, by vpdpbusd on 512-bit vectors; loop, layout
 * and trick: kernels/gemm_grouped_body.h, kernels/grouped_broadcast.h.
 *
 * Registers (6 x 64): 24 accumulators, 4 of codes, 1 broadcast of A, and of packed records the mask.
 */
#include "kernels/avx512vnni/grouped_avx512vnni.h"

enum { TRELLIS_ROWS = 0 };

/* 64 levels are four tables of 16; bits 4 and 5 of a state choose. */
static inline vi look_up_state(const uint8_t *levels, vi state)
{
    const vi low = _mm512_and_si512(state, _mm512_set1_epi8(15));
    const __mmask64 bit4 = _mm512_test_epi8_mask(state, _mm512_set1_epi8(16));
    const __mmask64 bit5 = _mm512_test_epi8_mask(state, _mm512_set1_epi8(32));
    vi found = look_up(levels, low);
    found = _mm512_mask_mov_epi8(found, bit4, look_up(levels + 16, low));
    const vi upper = _mm512_mask_mov_epi8(look_up(levels + 32, low), bit4, look_up(levels + 48, low));
    return _mm512_mask_mov_epi8(found, bit5, upper);
}

#include "kernels/grouped_broadcast.h"
#include "kernels/gemm_grouped_body.h"

QK_DEFINE_GEMM_GROUPED(avx512vnni)
