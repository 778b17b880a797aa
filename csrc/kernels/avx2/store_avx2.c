#include "kernels/avx2/simd_avx2.h"
#include "kernels/store_body.h"

QK_DEFINE_STORES(avx2)
