"""A linear layer of activations that are quantized with known parameters."""

import numpy as np

from .affine import quantize
from .gemm import int8_gemm
from .ranges import choose_qparams


def static_linear(x, weight, bias=None, *, input, output=None, activation=None, input_scales=None, method="minmax",
                  percentile=None):
    """x [..., K] in float32 or quantized as input says, times the transposed weight [N, K]."""
    by_column = {"scale": input.scale, "zero_point": input.zero_point}
    if input_scales is not None:
        weight = weight / input_scales
        zero_points = np.full(len(input_scales), input.zero_point)
        by_column = {"scale": input.scale / input_scales, "zero_point": zero_points, "axis": x.ndim - 1}
    chosen = choose_qparams(weight, axis=0, method=method, percentile=percentile)
    levels = quantize(weight, chosen.scale, axis=0)
    if x.dtype == np.float32:
        x = quantize(x, dtype=input.dtype, **by_column)
    requantization = {}
    if output is not None:
        requantization = {"out_dtype": output.dtype, "out_scale": output.scale, "out_zero_point": output.zero_point}
    return int8_gemm(x, levels.T, input.scale * chosen.scale, a_zero_point=input.zero_point, bias=bias,
                     activation=activation, **requantization)
