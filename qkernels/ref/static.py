"""A linear layer of activations that are quantized with known parameters."""

import numpy as np

from .affine import quantize
from .gemm import int8_gemm
from .ranges import choose_qparams


def static_linear(x, weight, bias=None, *, input, output=None, activation=None, method="minmax", percentile=None):
    """x [..., K] in float32 or quantized as input says, times the transposed weight [N, K]."""
    chosen = choose_qparams(weight, axis=0, method=method, percentile=percentile)
    levels = quantize(weight, chosen.scale, axis=0)
    if x.dtype == np.float32:
        x = quantize(x, input.scale, input.zero_point, dtype=input.dtype)
    requantization = {}
    if output is not None:
        requantization = {"out_dtype": output.dtype, "out_scale": output.scale, "out_zero_point": output.zero_point}
    return int8_gemm(x, levels.T, input.scale * chosen.scale, a_zero_point=input.zero_point, bias=bias,
                     activation=activation, **requantization)
