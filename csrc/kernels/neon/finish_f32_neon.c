#include "kernels/neon/simd_neon.h"
#include "kernels/finish_f32_body.h"

QK_DEFINE_FINISH(neon)
