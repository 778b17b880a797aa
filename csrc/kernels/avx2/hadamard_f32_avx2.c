#include "kernels/avx2/simd_avx2.h"

enum { RADIX = 8 };
#include "kernels/hadamard_f32_body.h"

QK_DEFINE_HADAMARD(avx2)
