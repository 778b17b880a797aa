#include "kernels/neon/simd_neon.h"
#include "kernels/viterbi_f32_body.h"

QK_DEFINE_VITERBI(neon)
