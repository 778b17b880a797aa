"""PyTorch's quantized linear layers, by engine, its integer matrix product, and its products with low-bit weights."""

from functools import partial

import numpy as np

from ..int8 import OUT_ZERO_POINT
from .peer import Peer


class Torch(Peer):
    requires = ("torch",)

    def __init__(self, threads):
        import torch

        super().__init__(threads)
        self.torch = torch
        torch.set_num_threads(threads)


class QuantizedLinear(Torch):
    engine = None

    def __init__(self, threads):
        super().__init__(threads)
        engines = self.torch.backends.quantized.supported_engines
        if self.engine not in engines:
            raise NotImplementedError(f"this PyTorch has the engines {', '.join(engines)}")
        self.torch.backends.quantized.engine = self.engine

    def _pack(self, p):
        torch = self.torch
        w = torch._make_per_channel_quantized_tensor(
            torch.from_numpy(np.ascontiguousarray(p.b_s8.T)), torch.from_numpy(p.b_scales),
            torch.zeros(p.n, dtype=torch.long), 0)
        return torch.ops.quantized.linear_prepack(w, None)

    def int8(self, p):
        torch = self.torch
        a = torch._make_per_tensor_quantized_tensor(torch.from_numpy(p.a_u8), float(p.a_scale), p.a_zero_point)
        return partial(torch.ops.quantized.linear, a, self._pack(p), float(p.out_scale), OUT_ZERO_POINT)

    def dynamic(self, p):
        return partial(self.torch.ops.quantized.linear_dynamic, self.torch.from_numpy(p.x), self._pack(p))

    def check(self, problem, result):
        super().check(problem, result.int_repr() if result.is_quantized else result)


class OneDNN(QuantizedLinear):
    name = "torch-onednn"
    engine = "onednn"


class X86(QuantizedLinear):
    name = "torch-x86"
    engine = "x86"


class IntMM(Torch):
    name = "torch-int_mm"

    def int32(self, p):
        torch = self.torch
        out = torch.empty((p.m, p.n), dtype=torch.int32)
        return partial(torch._int_mm, torch.from_numpy(p.a_s8), torch.from_numpy(p.b_s8), out=out)

    unpacked = int32


class BFloat16(Torch):
    """Weights in few bits, activations and results in bfloat16."""

    name = "torch-bfloat16"

    def _real(self, x):
        return self.torch.from_numpy(x).bfloat16()

    def int4_float32(self, p):
        torch = self.torch
        weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.from_numpy(p.codes.astype(np.int32)), 1)
        scales = self._real(p.scales.T)
        scales_and_zeros = torch.stack([scales, torch.zeros_like(scales)], dim=2)  # its codes' middle is 0.0
        return partial(torch.ops.aten._weight_int4pack_mm_for_cpu, self._real(p.x), weight, p.group_size,
                       scales_and_zeros)

    def int8_float32(self, p):
        torch = self.torch
        weight = torch.from_numpy((p.codes ^ 128).view(np.int8))
        return partial(torch.ops.aten._weight_int8pack_mm, self._real(p.x), weight, self._real(p.scales[:, 0]))

    def check(self, problem, result):
        super().check(problem, result.half())  # 16 bits that NumPy has
