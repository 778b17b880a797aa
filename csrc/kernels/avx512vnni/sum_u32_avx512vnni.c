#include "kernels/avx512vnni/simd_avx512vnni.h"
#include "kernels/sum_u32_body.h"

QK_DEFINE_SUM(avx512vnni)
