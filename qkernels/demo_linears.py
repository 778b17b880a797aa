"""The linear layers that the demo plugs into its encoder: float32 NumPy, and the ways of quantizing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import qkernels

from . import ptq
from .methods import CALIBRATED
from .static import StaticLinear
from .weights import QuantizedWeight

if TYPE_CHECKING:
    from .demo_calibration import Observed

MIXED = "mixed"  # for weights: each layer has the format of a plan
SMOOTHING = 0.8  # alpha of static activations


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

    def __init__(self, packed: qkernels.PackedB, scales: np.ndarray, bias: np.ndarray):
        self.packed, self.scales, self.bias = packed, scales, bias
        self.nbytes = math.prod(packed.shape) + scales.nbytes  # padding apart: the same on every processor

    @classmethod
    def quantized(cls, weight: np.ndarray, bias: np.ndarray) -> Int8Linear:
        scales = qkernels.choose_qparams(weight, "int8", axis=0).scale
        return cls(qkernels.pack_b(qkernels.quantize(weight, scales, axis=0), transpose=True), scales, bias)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x_q, row_scales, zero_points = qkernels.dynamic_quantize(x, axis=0, dtype="uint8")
        return qkernels.int8_gemm(x_q, self.packed, self.scales, a_zero_point=zero_points,
                                  row_scales=row_scales, bias=self.bias)


class LowBitLinear:
    """The same by `qkernels.linear`."""

    def __init__(self, weight: QuantizedWeight, bias: np.ndarray, activations: str):
        self.weight, self.bias, self.activations = weight, bias, activations
        self.nbytes = weight.nbytes

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return qkernels.linear(x, self.weight, self.bias, activations=self.activations)


def smoothed_linear(weight: np.ndarray, bias: np.ndarray, observed: Observed) -> StaticLinear:
    """int8 weights, and activations in uint8 with one scale and zero point for all, known beforehand.

    BERT's large columns would leave the others few levels, so a part of their range moves to the weights
    (SmoothQuant). With alpha 1/2, as published, nearest neighbors agree less than with more of it.
    """
    scales, _ = ptq.smooth([weight], observed.statistics, SMOOTHING)
    ends = np.stack([observed.columns.low, observed.columns.high]) / scales
    parameters = qkernels.choose_qparams(ends, "uint8", symmetric=False)
    return StaticLinear(weight, bias, input=parameters, input_scales=1 / scales)


class Scheme(NamedTuple):
    """How linear layers are quantized, in the words of `qkernels.quantize_weight` and `qkernels.linear`."""

    weights: str
    group_size: int | None
    symmetric: bool
    activations: str = "int8"
    rotate: bool = False
    window: int | None = None
    method: str = "rtn"
    static: bool = False  # the ranges of activations are those of calibration
    plan: float | str | None = None  # of MIXED weights: bits a weight on average, or the file of a plan

    @property
    def is_calibrated(self) -> bool:
        return self.static or self.weights == MIXED or self.method in CALIBRATED

    @property
    def options(self) -> dict:
        """Those of `quantize_weight`."""
        return {"format": self.weights, "group_size": self.group_size, "symmetric": self.symmetric,
                "rotate": self.rotate, "window": self.window, "method": self.method}

    def make_linear(self, weight: np.ndarray, bias: np.ndarray, observed: Observed | None = None):
        """A layer that is quantized so; observed is what calibration has seen, where the scheme is calibrated."""
        if self.static:
            return smoothed_linear(weight, bias, observed)
        if self == DYNAMIC_INT8:
            return Int8Linear.quantized(weight, bias)
        statistics = None if observed is None else observed.statistics
        return LowBitLinear(qkernels.quantize_weight(weight, **self.options, calibration=statistics), bias,
                            self.activations)

    def __str__(self) -> str:
        if self.plan is not None:
            return f"{MIXED}, {self.plan}" + ("" if isinstance(self.plan, str) else " bits")
        group = "" if self.group_size is None else f" g{self.group_size}"
        window = "" if self.window is None else f" L{self.window}"
        return (f"{self.weights}{group}{window}" + ("" if self.symmetric else " asymmetric")
                + (" rotated" if self.rotate else "") + ("" if self.method == "rtn" else f" {self.method}"))


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
STATIC_INT8 = DYNAMIC_INT8._replace(static=True)
# What a plan chooses from for each layer.
CANDIDATES = [
    *({"format": f"trellis{bits}", "rotate": True, "method": "ldlq"} for bits in (2, 3, 4)),
    {"format": "int8", "method": "gptq"},
]
COMPARED = (
    DYNAMIC_INT8,
    STATIC_INT8,
    Scheme("int8", None, True, "float32"),
    DEFAULTS["int4"],
    Scheme("int4", 32, False, "float32"),
    *(DEFAULTS["int4"]._replace(method=method) for method in ("hqq", "awq", "gptq")),
    Scheme("int4", 128, False),
    Scheme("int4", 128, False, method="gptq"),
    DEFAULTS["int2"],
    DEFAULTS["int2"]._replace(method="gptq"),
    *(DEFAULTS[name] for name in DEFAULTS if name not in ("int8", "int4", "int2")),
    *(DEFAULTS[name]._replace(method="ldlq") for name in TRELLIS),
    Scheme(MIXED, None, True, plan=3.5),
)
