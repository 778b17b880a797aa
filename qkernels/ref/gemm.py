"""Integer matrix product with zero points, then scales, bias, activation and requantization."""

import numpy as np

from .requant import output_bounds, requantize_fixed, requantize_float

ACTIVATIONS = {None: None, "relu": (0.0, np.inf), "relu6": (0.0, 6.0)}


def int8_gemm(
    a_q,
    b_q,
    scales=None,
    *,
    a_zero_point=0,
    b_zero_point=0,
    row_scales=None,
    bias=None,
    activation=None,
    out_dtype=None,
    out_scale=None,
    out_zero_point=0,
    requant="float",
):
    """acc[m, n] = sum_k (a - a_zp)(b - b_zp), then what the arguments ask for."""
    acc = accumulate(a_q, b_q, a_zero_point, b_zero_point)
    if bias is not None:
        bias = np.asarray(bias)
        if bias.dtype == np.int32:
            acc, bias = acc + bias, None
        else:
            bias = bias.astype(np.float32)
    if scales is None:
        return (acc & 0xFFFFFFFF).astype(np.uint32).view(np.int32)  # modulo 2**32

    scales = np.asarray(scales, np.float32)
    if row_scales is not None:
        row_scales = np.asarray(row_scales, np.float32)[:, None]
    if activation is None or isinstance(activation, str):
        activation = ACTIVATIONS[activation]
    if out_dtype is None or np.dtype(out_dtype) == np.float32:
        return scaled(acc, scales, row_scales, bias, activation)

    out_scale, out_zero_point = np.float32(out_scale), int(out_zero_point)
    bounds = output_bounds(activation, out_scale, out_zero_point, out_dtype)
    if requant == "fixed":
        real = scales.astype(np.float64) / np.float64(out_scale)
        return requantize_fixed(acc, real, bounds, out_zero_point, out_dtype)
    with np.errstate(all="ignore"):
        multiplier = scales / out_scale
        if row_scales is not None:
            multiplier = multiplier * row_scales
        offset = None if bias is None else bias / out_scale
    return requantize_float(acc, multiplier, offset, bounds, out_zero_point, out_dtype)


def accumulate(a_q, b_q, a_zero_point, b_zero_point):
    """The exact accumulator, int64. a_zero_point is scalar or [M], b_zero_point scalar or [N]."""
    a = np.asarray(a_q).astype(np.int64)
    b = np.asarray(b_q).astype(np.int64)
    a_zero = np.asarray(a_zero_point).astype(np.int64)
    if a_zero.ndim:
        a_zero = a_zero[:, None]
    return np.matmul(a - a_zero, b - np.asarray(b_zero_point).astype(np.int64))


def scaled(acc, scales, row_scales, bias, activation):
    """float32(acc) * (scales[n] * row_scales[m]) + bias[n], clamped; one rounding a step."""
    with np.errstate(all="ignore"):
        multiplier = scales if row_scales is None else scales * row_scales
        y = acc.astype(np.float32) * multiplier
        if bias is not None:
            y = y + bias
    if activation is not None:
        low, high = np.float32(activation[0]), np.float32(activation[1])
        y = np.where(y < low, low, y)
        y = np.where(y > high, high, y)
    return y
