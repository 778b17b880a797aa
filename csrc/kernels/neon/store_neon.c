#include "kernels/neon/simd_neon.h"
#include "kernels/store_body.h"

QK_DEFINE_STORES(neon)
