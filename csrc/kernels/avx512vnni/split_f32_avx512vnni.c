#include "kernels/avx512vnni/simd_avx512vnni.h"
#include "kernels/split_f32_body.h"

QK_DEFINE_SPLIT(avx512vnni)
