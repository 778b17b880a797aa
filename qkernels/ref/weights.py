"""Quantized weights and the linear layer on top of them."""

import numpy as np

from .affine import choose_qparams, dynamic_quantize, quantize
from .gemm import int8_gemm


def quantize_weight_int8(w):
    """w [N, K] to (q, scales): symmetric, one scale for each output channel."""
    scales = choose_qparams(w, "int8", axis=0, symmetric=True).scale
    return quantize(w, scales, dtype="int8", axis=0), scales


def linear(x, q, scales, bias=None, activation=None):
    """x [..., K] times the transposed weight; each row of x gets its own int8 scale."""
    x = np.asarray(x, np.float32)
    rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    x_q, x_scales, _ = dynamic_quantize(rows, axis=0, dtype="int8", symmetric=True)
    y = int8_gemm(x_q, q.T, scales, row_scales=x_scales, bias=bias, activation=activation)
    return y.reshape(x.shape[:-1] + (q.shape[0],))
