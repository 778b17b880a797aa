#include "kernels/avx512vnni/simd_avx512vnni.h"

enum { RADIX = 16 };
#include "kernels/hadamard_f32_body.h"

QK_DEFINE_HADAMARD(avx512vnni)
