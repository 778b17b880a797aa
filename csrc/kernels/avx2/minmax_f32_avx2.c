#include "kernels/avx2/simd_avx2.h"
#include "kernels/minmax_f32_body.h"

QK_DEFINE_MINMAX(avx2)
