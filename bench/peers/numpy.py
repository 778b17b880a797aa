"""NumPy's matrix product in float32: what a program without quantization does."""

from functools import partial

import numpy as np

from .peer import Peer


class NumPy(Peer):
    name = "numpy-float32"
    requires = ("numpy",)
    is_rival = False  # another product: shown beside, as the cost of not quantizing

    def int32(self, p):
        return partial(np.matmul, p.x, p.w, out=np.empty((p.m, p.n), np.float32))

    unpacked = float32 = int8 = fixed = dynamic = int32
    int4 = int4_float32 = int4_asymmetric = int8_grouped = int8_float32 = int2 = int32
    nf4 = codebook4 = binary = ternary = trellis2 = trellis3 = trellis4 = binary_gemm = int32
