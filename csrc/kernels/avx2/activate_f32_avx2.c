#include "kernels/avx2/simd_avx2.h"
#include "kernels/activate_f32_body.h"

QK_DEFINE_ACTIVATIONS(avx2)
