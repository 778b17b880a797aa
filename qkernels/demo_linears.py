"""The linear layers that the demo plugs into its encoder: float32 NumPy, and the ways of quantizing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import qkernels


class Float32Linear:
    """``x @ weight.T + bias`` in NumPy."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        self.weight, self.bias = weight, bias
        self.nbytes = weight.nbytes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = x @ self.weight.T
        y += self.bias
        return y


class Int8Linear:
    """The same in 8 bits: symmetric weights, a scale per output channel; asymmetric activations,
    a scale and zero point per row, found on the fly.

    Asymmetric because BERT's activations are lopsided (one large channel of constant sign, GELU):
    at the same cost the embeddings' error is less than half that of `qkernels.linear`.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        self.scales = qkernels.choose_qparams(weight, "int8", axis=0).scale
        weight_q = qkernels.quantize(weight, self.scales, axis=0)
        self.packed = qkernels.pack_b(weight_q, transpose=True)
        self.bias = bias
        self.nbytes = self.packed.nbytes + self.scales.nbytes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x_q, row_scales, zero_points = qkernels.dynamic_quantize(x, axis=0, dtype="uint8")
        return qkernels.int8_gemm(x_q, self.packed, self.scales, a_zero_point=zero_points,
                                  row_scales=row_scales, bias=self.bias)


class LowBitLinear:
    """The same by `qkernels.quantize_weight` and `qkernels.linear`."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, scheme: Scheme):
        self.weight = qkernels.quantize_weight(
            weight, scheme.weights, group_size=scheme.group_size, symmetric=scheme.symmetric,
            rotate=scheme.rotate, window=scheme.window)
        self.bias, self.activations = bias, scheme.activations
        self.nbytes = self.weight.nbytes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return qkernels.linear(x, self.weight, self.bias, activations=self.activations)


class Scheme(NamedTuple):
    """How linear layers are quantized, in the words of `qkernels.quantize_weight` and `qkernels.linear`."""

    weights: str
    group_size: int | None
    symmetric: bool
    activations: str = "int8"
    rotate: bool = False
    window: int | None = None

    def make_linear(self, weight: np.ndarray, bias: np.ndarray) -> Int8Linear | LowBitLinear:
        """A layer that is quantized so."""
        return Int8Linear(weight, bias) if self == DYNAMIC_INT8 else LowBitLinear(weight, bias, self)

    def __str__(self) -> str:
        group = "" if self.group_size is None else f" g{self.group_size}"
        window = "" if self.window is None else f" L{self.window}"
        return (f"{self.weights}{group}{window}" + ("" if self.symmetric else " asymmetric")
                + (" rotated" if self.rotate else ""))


# What each format has unless options say otherwise.
DEFAULTS = {
    scheme.weights: scheme for scheme in (
        Scheme("int8", None, True),
        Scheme("int4", 32, False),
        Scheme("int2", 32, False),
        Scheme("nf4", 64, True),
        Scheme("codebook4", 64, True),
        Scheme("log4", 64, True),
        Scheme("binary", 32, True),
        Scheme("ternary", 32, True),
        Scheme("trellis2", None, True, rotate=True),
        Scheme("trellis3", None, True, rotate=True),
        Scheme("trellis4", None, True, rotate=True),
    )
}
WITH_ZERO_POINTS = ("int8", "int4", "int2")
TRELLIS = ("trellis2", "trellis3", "trellis4")
DYNAMIC_INT8 = DEFAULTS["int8"]
COMPARED = (
    DYNAMIC_INT8,
    Scheme("int8", None, True, "float32"),
    DEFAULTS["int4"],
    Scheme("int4", 32, False, "float32"),
    Scheme("int4", 128, False),
    *(DEFAULTS[name] for name in DEFAULTS if name not in ("int8", "int4")),
)
