#include "kernels/neon/simd_neon.h"
#include "kernels/fake_grad_f32_body.h"

QK_DEFINE_FAKE_GRAD(neon)
