#include "kernels/avx2/simd_avx2.h"
#include "kernels/fake_grad_f32_body.h"

QK_DEFINE_FAKE_GRAD(avx2)
