#include "kernels/neon/simd_neon.h"
#include "kernels/split_f32_body.h"

QK_DEFINE_SPLIT(neon)
