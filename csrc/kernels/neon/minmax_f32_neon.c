#include "kernels/neon/simd_neon.h"
#include "kernels/minmax_f32_body.h"

QK_DEFINE_MINMAX(neon)
