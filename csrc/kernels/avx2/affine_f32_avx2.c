#include "kernels/avx2/simd_avx2.h"
#include "kernels/affine_f32_body.h"

QK_DEFINE_AFFINE(avx2)
