/* Weights in blocks along k, as avx512vnni multiplies them; what AVX-512 VBMI adds is vpermb, which looks up 64 bytes
 * at once, by the low 6 bits of each byte: the levels of a trellis' states. Loop, layout and tricks:
 * kernels/gemm_grouped_body.h, kernels/grouped_broadcast.h, kernels/grouped_planes.h.
 *
 * Operations for 64 weights of 2 bits and one row: 3/8 shift, 1/2 select, 1/8 rotation, 1 lookup, 1 multiply = 3.
 */
#include "kernels/avx512vnni/grouped_avx512vnni.h"

#if !defined(__AVX512VBMI__)
#error "compile this folder with the flags of csrc/build.py"
#endif

enum { TRELLIS_ROWS = 4 };

static inline vi look_up_state(const uint8_t *levels, vi state)
{
    return _mm512_permutexvar_epi8(state, _mm512_load_si512(levels));
}

#include "kernels/grouped_broadcast.h"
#include "kernels/gemm_grouped_body.h"

QK_DEFINE_GEMM_GROUPED(avx512vbmi)
