#include "kernels/avx2/simd_avx2.h"
#include "kernels/viterbi_f32_body.h"

QK_DEFINE_VITERBI(avx2)
