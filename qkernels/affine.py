"""Affine (uniform) quantization: real = scale * (q - zero_point)."""

import math

import numpy as np

from . import _arguments as arguments
from . import _core


class Layout:
    """Where the scales of an array lie: their shape, and the same for the C side."""

    __slots__ = ("scale_shape", "struct")

    def __init__(self, shape, axis, group_size):
        size = math.prod(shape)
        if axis is not None and group_size is not None:
            raise ValueError("group_size: cannot be combined with axis; groups always lie along the last axis")
        if group_size is not None:
            group_size = arguments.scalar(group_size, "group_size", 1, 2**62)
            if not shape:
                raise ValueError("group_size: takes an array of at least one dimension")
            rows, cols = size // shape[-1] if shape[-1] else 0, shape[-1]
            self.scale_shape = (*shape[:-1], -(-cols // group_size))
            self._set(rows, cols, group_size, max(rows, 1))
        elif axis is not None:
            axis = arguments.scalar(axis, "axis", -len(shape), len(shape) - 1) % len(shape)
            channels = shape[axis]
            outer = math.prod(shape[:axis])
            inner = math.prod(shape[axis + 1:])
            self.scale_shape = (channels,)
            if inner == 1:
                self._set(outer, channels, 0, 1)
            else:
                self._set(outer * channels, inner, max(inner, 1), max(channels, 1))
        else:
            self.scale_shape = ()
            self._set(1, size, max(size, 1), 1)

    def _set(self, rows, cols, block, channels):
        scales = math.prod(self.scale_shape)
        self.struct = {"rows": rows, "cols": cols, "block": block, "channels": channels, "scales": scales}


def parameters_of(scale, zero_point, layout):
    """Contiguous float32 scales and int32 zero points for the C side, which checks their values."""
    return (arguments.float_parameter(scale, "scale", layout.scale_shape),
            arguments.integer_parameter(zero_point, "zero_point", layout.scale_shape))


@_core.in_default_floating_mode
def quantize(x, scale, zero_point=0, *, dtype="int8", axis=None, group_size=None, out=None):
    """Quantize: ``saturate(round_half_even(x / scale) + zero_point)``.

    Parameters
    ----------
    x : float32 array
        Any shape and strides (copied once when not C-contiguous).
    scale : float or float array
        Finite and > 0: a scalar, or [C] with `axis`, or x.shape[:-1] + (ceil(K / group_size),).
    zero_point : int or integer array, default 0
        In the range of dtype; a scalar or the shape of scale.
    dtype : str, default "int8"
        "int8", "uint8", "int4", "uint4", "int2" or "uint2"; narrow values lie one a byte in int8 or uint8.
    axis, group_size : int, optional
        See `choose_qparams`.
    out : int8 or uint8 ndarray, optional
        Of x's shape; may be strided, may not share memory with x. Its content is unspecified after an error.

    Returns
    -------
    int8 or uint8 ndarray
        Of x's shape.

    Raises
    ------
    TypeError
        An argument's dtype is not one that it takes.
    ValueError
        x has NaN, a scale is not finite and > 0, a zero point is out of range, a shape does not match.

    Notes
    -----
    ONNX QuantizeLinear in float32, with a true division. Infinities saturate. Bit-identical on every processor.
    """
    qtype = arguments.qtype(dtype)
    x = arguments.float_array(x, "x")
    layout = Layout(x.shape, axis, group_size)
    scale, zero_point = parameters_of(scale, zero_point, layout)
    output = _core.Output(out, x.shape, qtype.storage, "x", x)
    _core.quantize(_core.contiguous(x), layout.struct, qtype.range, scale, zero_point, output.buffer)
    return output.done()


@_core.in_default_floating_mode
def dequantize(q, scale, zero_point=0, *, dtype=None, axis=None, group_size=None, out=None):
    """Dequantize: ``float32(q - zero_point) * scale``.

    Parameters
    ----------
    q : int8 or uint8 array
        Any shape and strides (copied once when not C-contiguous).
    scale, zero_point, axis, group_size
        See `quantize`.
    dtype : str, optional
        The quantized type when it is narrower than its storage; values must then fit it.
    out : float32 ndarray, optional
        Of q's shape; may be strided, may not share memory with q.

    Returns
    -------
    float32 ndarray
        Of q's shape. Bit-identical on every processor: the subtraction is exact, the product rounded once.

    Raises
    ------
    TypeError
        An argument's dtype is not one that it takes.
    ValueError
        A scale is not finite and > 0, a value or zero point does not fit dtype, a shape does not match.
    """
    q = arguments.byte_array(q, "q")
    qtype = arguments.qtype(q.dtype if dtype is None else dtype)
    if qtype.storage != q.dtype:
        raise TypeError(f"dtype: {qtype.name} values are stored in {qtype.storage}, got q of {q.dtype}")
    if qtype.name != q.dtype.name and q.size and (q.min() < qtype.qmin or q.max() > qtype.qmax):
        raise ValueError(f"q: has values outside {qtype.name}'s range, {qtype.qmin} to {qtype.qmax}")
    layout = Layout(q.shape, axis, group_size)
    scale, zero_point = parameters_of(scale, zero_point, layout)
    output = _core.Output(out, q.shape, np.float32, "q", q)
    _core.dequantize(_core.contiguous(q), layout.struct, qtype.range, scale, zero_point, output.buffer)
    return output.done()


@_core.in_default_floating_mode
def fake_quantize(x, scale, zero_point=0, *, dtype="int8", axis=None, group_size=None):
    """Quantize and dequantize in one pass: the values that a quantized model would see.

    Parameters
    ----------
    x, scale, zero_point, dtype, axis, group_size
        See `quantize`.

    Returns
    -------
    float32 ndarray
        Of x's shape; bit-identical to ``dequantize(quantize(x, ...), ...)``.

    Raises
    ------
    TypeError, ValueError
        As `quantize`.
    """
    qtype = arguments.qtype(dtype)
    x = arguments.float_array(x, "x")
    layout = Layout(x.shape, axis, group_size)
    scale, zero_point = parameters_of(scale, zero_point, layout)
    output = _core.Output(None, x.shape, np.float32, "x")
    _core.fake_quantize(_core.contiguous(x), layout.struct, qtype.range, scale, zero_point, output.buffer)
    return output.done()


def dynamic_quantize(x, *, axis=None, dtype="uint8", symmetric=False):
    """Choose scales from the values and quantize them, in one pass over memory.

    Parameters
    ----------
    x : float32 array
        Any shape and strides (copied once when not C-contiguous).
    axis : int, optional
        The axis that has its own scales; ``axis=0`` of a 2-D input is per token.
    dtype : str, default "uint8"
        See `quantize`.
    symmetric : bool, default False
        See `choose_qparams`.

    Returns
    -------
    q : int8 or uint8 ndarray
        Of x's shape.
    scale : float32 ndarray
        () or [C].
    zero_point : int8 or uint8 ndarray
        The shape of scale.

    Raises
    ------
    TypeError
        x is not float32, or dtype is unknown.
    ValueError
        x has NaN or infinities.

    Notes
    -----
    Bit-identical to `choose_qparams` followed by `quantize`; with the defaults, ONNX DynamicQuantizeLinear.
    """
    qtype = arguments.qtype(dtype)
    x = arguments.float_array(x, "x")
    layout = Layout(x.shape, axis, None)
    q = _core.empty(x.shape, qtype.storage, "x")
    scale = np.empty(layout.scale_shape, np.float32)
    zero_point = np.empty(layout.scale_shape, np.int32)
    _core.dynamic_quantize(_core.contiguous(x), layout.struct, qtype.range,
                           {"symmetric": bool(symmetric), "full_range": False}, q, scale, zero_point)
    return q, scale[()], zero_point.astype(qtype.storage)[()]
