#include "kernels/avx2/simd_avx2.h"
#include "kernels/sum_u32_body.h"

QK_DEFINE_SUM(avx2)
