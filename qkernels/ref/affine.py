"""Affine quantization: real = scale * (q - zero_point), in float32, one rounding a step."""

from typing import NamedTuple

import numpy as np

RANGES = {
    "int8": (-128, 127), "uint8": (0, 255),
    "int4": (-8, 7), "uint4": (0, 15),
    "int2": (-2, 1), "uint2": (0, 3),
}  # fmt: skip
SMALLEST_SCALE = np.float32(2.0**-126)


class QParams(NamedTuple):
    scale: np.ndarray
    zero_point: np.ndarray
    dtype: str
    axis: int | None
    group_size: int | None


def dtype_name(dtype):
    """The name of a quantized type, given as a name or as a NumPy dtype."""
    return dtype if isinstance(dtype, str) else np.dtype(dtype).name


def storage(dtype):
    """The NumPy type that holds one value: int8 for int*, uint8 for uint*."""
    return np.uint8 if dtype_name(dtype).startswith("u") else np.int8


def spread(param, shape, axis, group_size):
    """Give a scale or zero point the shape in which it broadcasts against the data."""
    if param.ndim == 0:
        return param
    if axis is not None:
        ones = [1] * len(shape)
        ones[axis] = -1
        return param.reshape(ones)
    return np.repeat(param, group_size, axis=-1)[..., : shape[-1]]


def channels(x, axis, group_size):
    """Rearrange x so that the values sharing one scale lie along the last axis."""
    if group_size is not None:
        # Zeros may fill the last group up: every range includes 0 anyway.
        count = -(-x.shape[-1] // group_size)
        padded = np.zeros(x.shape[:-1] + (count * group_size,), np.float32)
        padded[..., : x.shape[-1]] = x
        return padded.reshape(x.shape[:-1] + (count, group_size))
    if axis is not None:
        rows = np.moveaxis(x, axis, 0)
        return rows.reshape(rows.shape[0], int(np.prod(rows.shape[1:])))
    return x.reshape(x.size)


def choose_qparams(
    x,
    dtype="int8",
    *,
    axis=None,
    group_size=None,
    symmetric=True,
    full_range=False,
):
    """Scale and zero point from the smallest and largest value of each channel."""
    x = np.asarray(x, np.float32)
    if not np.isfinite(x).all():
        raise ValueError("x: has NaN or infinite values")
    name = dtype_name(dtype)
    qmin, qmax = RANGES[name]
    values = channels(x, axis, group_size)
    lo = values.min(axis=-1, initial=np.float32(0))
    hi = values.max(axis=-1, initial=np.float32(0))

    with np.errstate(all="ignore"):
        if symmetric:
            top = (qmax - qmin) // 2  # 127, 7, 1
            scale = np.maximum(-lo, hi) / np.float32(top + 0.5 if full_range else top)
        else:
            n = np.float32(qmax - qmin)
            span = hi - lo
            scale = np.where(np.isinf(span), hi / n - lo / n, span / n)
        scale = np.maximum(scale, SMALLEST_SCALE)
        scale = np.where((lo == 0) & (hi == 0), np.float32(1), scale).astype(np.float32)
        if symmetric:
            zero_point = np.full(scale.shape, (qmin + qmax + 1) // 2)  # 0, or 128, 8, 2
        else:
            zero_point = np.clip(np.rint(np.float32(qmin) - lo / scale), qmin, qmax)
    return QParams(scale[()], zero_point.astype(storage(name))[()], name, axis, group_size)


def quantize(x, scale, zero_point=0, *, dtype="int8", axis=None, group_size=None):
    """saturate(round_half_even(x / scale) + zero_point)."""
    x = np.asarray(x, np.float32)
    if np.isnan(x).any():
        raise ValueError("x: has NaN values")
    qmin, qmax = RANGES[dtype_name(dtype)]
    scale = spread(np.asarray(scale, np.float32), x.shape, axis, group_size)
    zero = spread(np.asarray(zero_point).astype(np.int64), x.shape, axis, group_size)
    with np.errstate(all="ignore"):
        t = np.asarray(x / scale)
    # The bounds are integers: clamping before rounding gives what clamping after would.
    t = np.maximum(t, (qmin - zero).astype(np.float32))
    t = np.minimum(t, (qmax - zero).astype(np.float32))
    return np.asarray(np.rint(t).astype(np.int64) + zero).astype(storage(dtype))


def dequantize(q, scale, zero_point=0, *, dtype=None, axis=None, group_size=None):
    """float32(q - zero_point) * scale."""
    q = np.asarray(q).astype(np.int64)
    scale = spread(np.asarray(scale, np.float32), q.shape, axis, group_size)
    zero = spread(np.asarray(zero_point).astype(np.int64), q.shape, axis, group_size)
    with np.errstate(all="ignore"):
        return np.asarray(np.asarray(q - zero).astype(np.float32) * scale)


def dynamic_quantize(x, *, axis=None, dtype="uint8", symmetric=False):
    """choose_qparams, then quantize with what it chose."""
    params = choose_qparams(x, dtype, axis=axis, symmetric=symmetric)
    q = quantize(x, params.scale, params.zero_point, dtype=dtype, axis=axis)
    return q, params.scale, params.zero_point


def fake_quantize(x, scale, zero_point=0, *, dtype="int8", axis=None, group_size=None):
    """What is left of x after quantize and dequantize."""
    where = {"dtype": dtype, "axis": axis, "group_size": group_size}
    return dequantize(quantize(x, scale, zero_point, **where), scale, zero_point, **where)
