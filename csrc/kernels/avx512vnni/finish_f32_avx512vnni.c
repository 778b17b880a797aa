#include "kernels/avx512vnni/simd_avx512vnni.h"
#include "kernels/finish_f32_body.h"

QK_DEFINE_FINISH(avx512vnni)
