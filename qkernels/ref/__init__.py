"""The NumPy oracle: what every kernel must compute, bit for bit, in the plainest form.

Nothing here is fast, and nothing here calls compiled code of this package. Arguments are trusted;
the public functions do the checking.
"""

from .affine import (
    QParams,
    dequantize,
    dynamic_quantize,
    fake_quantize,
    quantize,
)
from .binary import binary_gemm
from .formats import quantize_weight, weight_of_codes, weight_of_stream
from .gemm import int8_gemm
from .hadamard import hadamard
from .packing import pack, unpack
from .ranges import choose_qparams
from .static import static_linear
from .weights import Weight, linear

__all__ = [
    "QParams",
    "Weight",
    "binary_gemm",
    "choose_qparams",
    "dequantize",
    "dynamic_quantize",
    "fake_quantize",
    "hadamard",
    "int8_gemm",
    "linear",
    "pack",
    "quantize",
    "quantize_weight",
    "static_linear",
    "unpack",
    "weight_of_codes",
    "weight_of_stream",
]
