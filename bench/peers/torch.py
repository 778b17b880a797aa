"""PyTorch's quantized linear layers, by engine, and its integer matrix product."""

from functools import partial

import numpy as np

from ..problem import OUT_ZERO_POINT
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

    def check(self, product, problem, result):
        super().check(product, problem, result.int_repr() if result.is_quantized else result)


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
