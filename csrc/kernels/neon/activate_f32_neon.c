#include "kernels/neon/simd_neon.h"
#include "kernels/activate_f32_body.h"

QK_DEFINE_ACTIVATIONS(neon)
