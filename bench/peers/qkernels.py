"""This package: what is measured, and its int8 product as a yardstick for weights in fewer bits."""

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
        codes = p.b_s8.T.view(np.uint8) ^ 128  # 0.0 is code 128
        weight = qkernels.QuantizedWeight("int8", codes, p.b_scales)
        return partial(qkernels.linear, p.x, weight, out=np.empty((p.m, p.n), np.float32))

    def int4(self, p):
        weight = qkernels.QuantizedWeight(f"int{p.bits}", p.codes, p.scales, p.zero_points, p.group_size)
        return partial(qkernels.linear, p.x, weight, activations=p.activations, out=np.empty((p.m, p.n), np.float32))

    int4_float32 = int4_asymmetric = int8_grouped = int8_float32 = int2 = int4

    def nf4(self, p):
        others = {"levels": p.table} if p.product == "codebook4" else {}
        if p.format.family == "trellis":
            others = {"k": p.k}
        weight = qkernels.QuantizedWeight(p.product, p.codes, p.scales, None, p.group_size, **others)
        return partial(qkernels.linear, p.x, weight, out=np.empty((p.m, p.n), np.float32))

    codebook4 = binary = ternary = trellis2 = trellis3 = trellis4 = nf4

    def binary_gemm(self, p):
        a_bits, b_bits = (qkernels.pack((signs > 0).view(np.uint8), 1) for signs in (p.a_s8, p.b_s8))
        return partial(qkernels.binary_gemm, a_bits, b_bits, p.k, out=np.empty((p.m, p.n), np.int32))


class Int8Gemm(Peer):
    """Both sides int8 with one scale for x and one a channel for the weight, and quantized before."""

    name = "int8_gemm"
    is_rival = False

    def int4(self, p):
        x, x_scale, x_zero_point = qkernels.dynamic_quantize(p.x)
        scales = qkernels.choose_qparams(p.w, axis=1).scale
        b = qkernels.pack_b(qkernels.quantize(p.w, scales, axis=1))
        return partial(qkernels.int8_gemm, x, b, x_scale * scales, a_zero_point=x_zero_point,
                       out=np.empty((p.m, p.n), np.float32))

    int4_asymmetric = int8_grouped = int2 = int4
    nf4 = codebook4 = binary = ternary = trellis2 = trellis3 = trellis4 = int4

    def binary_gemm(self, p):
        return partial(qkernels.int8_gemm, p.a_s8, qkernels.pack_b(p.b_s8, transpose=True),
                       out=np.empty((p.m, p.n), np.int32))
