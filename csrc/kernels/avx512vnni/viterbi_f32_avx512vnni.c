#include "kernels/avx512vnni/simd_avx512vnni.h"
#include "kernels/viterbi_f32_body.h"

QK_DEFINE_VITERBI(avx512vnni)
