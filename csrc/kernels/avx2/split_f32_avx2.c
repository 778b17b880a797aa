#include "kernels/avx2/simd_avx2.h"
#include "kernels/split_f32_body.h"

QK_DEFINE_SPLIT(avx2)
