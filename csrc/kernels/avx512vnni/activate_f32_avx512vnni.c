#include "kernels/avx512vnni/simd_avx512vnni.h"
#include "kernels/activate_f32_body.h"

QK_DEFINE_ACTIVATIONS(avx512vnni)
