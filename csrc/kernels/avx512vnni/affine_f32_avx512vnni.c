#include "kernels/avx512vnni/simd_avx512vnni.h"
#include "kernels/affine_f32_body.h"

QK_DEFINE_AFFINE(avx512vnni)
