#include "kernels/avx512vnni/simd_avx512vnni.h"
#include "kernels/minmax_f32_body.h"

QK_DEFINE_MINMAX(avx512vnni)
