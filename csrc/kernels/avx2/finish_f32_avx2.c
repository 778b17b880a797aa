#include "kernels/avx2/simd_avx2.h"
#include "kernels/finish_f32_body.h"

QK_DEFINE_FINISH(avx2)
