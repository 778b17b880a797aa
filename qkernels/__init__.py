"""Quantization kernels for CPUs, bit-exact on every processor. See the README for a tour."""

from .affine import dequantize, dynamic_quantize, fake_quantize, quantize
from .binary import binary_gemm
from .codebook import Codebook
from .dispatch import cpu_info
from .files import QuantizedModel, load, save
from .gemm import PackedB, int8_gemm, pack_b
from .hadamard import hadamard
from .layers import linear
from .packing import pack, unpack
from .qparams import QParams, choose_qparams
from .quantizers import quantize_weight
from .threads import get_num_threads, num_threads, set_num_threads
from .weight_stack import QuantizedWeightStack
from .weights import QuantizedWeight

__version__ = "0.1.0"

__all__ = [
    "Codebook", "PackedB", "QParams", "QuantizedModel", "QuantizedWeight", "QuantizedWeightStack", "binary_gemm",
    "choose_qparams", "cpu_info", "dequantize", "dynamic_quantize", "fake_quantize", "get_num_threads", "hadamard",
    "int8_gemm", "linear", "load", "num_threads", "pack", "pack_b", "quantize", "quantize_weight", "save",
    "set_num_threads", "unpack",
]
