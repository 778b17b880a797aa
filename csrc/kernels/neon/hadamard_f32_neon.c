#include "kernels/neon/simd_neon.h"

enum { RADIX = 16 };
#include "kernels/hadamard_f32_body.h"

QK_DEFINE_HADAMARD(neon)
