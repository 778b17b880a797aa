"""This package."""

from functools import partial

import numpy as np

import qkernels

from .peer import Peer


class Qkernels(Peer):
    name = "qkernels"
    is_rival = False
    a_bits = (8,)

    def _gemm(self, p, dtype, b=None, **options):
        return partial(qkernels.int8_gemm, p.a_u8, qkernels.pack_b(p.b_s8) if b is None else b,
                       a_zero_point=p.a_zero_point, out=np.empty((p.m, p.n), dtype), **options)

    def int32(self, p):
        return self._gemm(p, np.int32)

    def unpacked(self, p):
        return self._gemm(p, np.int32, p.b_s8)

    def float32(self, p):
        return self._gemm(p, np.float32, scales=p.a_scale * p.b_scales)

    def int8(self, p, requant="float"):
        return self._gemm(p, np.int8, scales=p.a_scale * p.b_scales, out_dtype=np.int8, out_scale=p.out_scale,
                          requant=requant)

    def fixed(self, p):
        return self.int8(p, requant="fixed")

    def dynamic(self, p):
        state = {"format": "int8", "q": p.b_s8.T, "scales": p.b_scales}
        weight = qkernels.QuantizedWeight.from_state(state)
        return partial(qkernels.linear, p.x, weight, out=np.empty((p.m, p.n), np.float32))
