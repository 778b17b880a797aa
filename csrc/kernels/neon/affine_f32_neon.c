#include "kernels/neon/simd_neon.h"
#include "kernels/affine_f32_body.h"

QK_DEFINE_AFFINE(neon)
