#include "kernels/neon/simd_neon.h"
#include "kernels/sum_u32_body.h"

QK_DEFINE_SUM(neon)
