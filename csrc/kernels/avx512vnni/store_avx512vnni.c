#include "kernels/avx512vnni/simd_avx512vnni.h"
#include "kernels/store_body.h"

QK_DEFINE_STORES(avx512vnni)
