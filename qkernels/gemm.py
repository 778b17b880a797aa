"""Integer matrix products with zero points, scales, bias and requantization."""

import math

import numpy as np

from . import _arguments as arguments
from . import _core

_NO_BOUNDS = (-math.inf, math.inf)
_ACTIVATIONS = {None: _NO_BOUNDS, "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
_INT8_RANGES = {np.dtype(np.int8): arguments.QTYPES["int8"].range, np.dtype(np.uint8): arguments.QTYPES["uint8"].range}


def _aligned_bytes(size):
    """An uninitialized uint8 array that starts at a cache line."""
    raw = np.empty(size + 63, np.uint8)
    start = -raw.__array_interface__["data"][0] % 64
    return raw[start:start + size]


class PackedB:
    """A right-hand side [K, N] in the layout of the selected ISA's kernel; made by `pack_b`.

    Pickles hold the plain integers, so they load on any machine and are packed there for its ISA.

    Attributes
    ----------
    shape : (int, int)
        (K, N).
    dtype : numpy.dtype
        int8 or uint8.
    zero_point : int32 ndarray
        [N].
    nbytes : int
        Bytes of the packed form, padding and column sums included.
    isa : str
        The ISA whose kernel can use it.
    """

    __slots__ = ("shape", "dtype", "_buffer")

    def __init__(self, b, zero_point):
        """b: int8 or uint8 [K, N], any strides; zero_point: int32, one or [N]. See `pack_b`."""
        self.shape = b.shape
        self.dtype = b.dtype
        self._buffer = _aligned_bytes(_core.packed_b_size(*b.shape))
        _core.pack_b(b, zero_point, self._buffer)

    @property
    def nbytes(self):
        return self._buffer.nbytes

    @property
    def isa(self):
        return _core.packed_b_isa(self._buffer)

    @property
    def zero_point(self):
        return self._unpacked()[1]

    def unpack(self):
        """The original integers.

        Returns
        -------
        int8 or uint8 ndarray
            [K, N], C-contiguous.
        """
        return self._unpacked()[0]

    def _unpacked(self):
        b = np.empty(self.shape, self.dtype)
        zero_point = np.empty(self.shape[1], np.int32)
        _core.unpack_b(self._buffer, b, zero_point)
        return b, zero_point

    def __reduce__(self):
        return PackedB, self._unpacked()

    def __repr__(self):
        return f"<PackedB {self.shape[0]}x{self.shape[1]} {self.dtype} for {self.isa}, {self.nbytes} bytes>"


def _one_or_each(x, name, length, convert):
    """A parameter as a 1-D array: of one value, or of `length`."""
    x = arguments.parameter(x, name)
    return convert(x, name, (1,) if x.ndim == 0 else (length,))


def pack_b(b_q, *, b_zero_point=0, transpose=False):
    """Pack a right-hand side once, for many products.

    Parameters
    ----------
    b_q : int8 or uint8 array
        [K, N], or with transpose [N, K] (weights as PyTorch stores them). Any strides, without a copy.
    b_zero_point : int or integer array, default 0
        In b_q's range; a scalar or [N].
    transpose : bool, default False
        b_q is stored [N, K].

    Returns
    -------
    PackedB

    Raises
    ------
    TypeError
        b_q is not int8 or uint8, or a zero point is not an integer.
    ValueError
        b_q is not 2-D, or a zero point is out of range or of the wrong shape.
    """
    b = arguments.byte_array(b_q, "b_q")
    if b.ndim != 2:
        raise ValueError(f"b_q: got {b.ndim} dimensions, pack_b takes 2")
    if transpose:
        b = b.T
    return PackedB(b, _one_or_each(b_zero_point, "b_zero_point", b.shape[1], arguments.integer_parameter))


def _clamp_bounds(activation):
    """The (low, high) bounds of an activation, in real units."""
    if activation is None or isinstance(activation, str):
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation: got {activation!r}, takes None, 'relu', 'relu6' or a (low, high) pair")
        return _ACTIVATIONS[activation]
    try:
        low, high = (float(bound) for bound in activation)
    except (TypeError, ValueError):
        raise TypeError(
            f"activation: got {activation!r}, takes None, 'relu', 'relu6' or a (low, high) pair of floats") from None
    if not low <= high:
        raise ValueError(f"activation: got the bounds ({low}, {high}), takes low <= high")
    return low, high


def _output_dtype(scales, out_dtype):
    """The dtype of the result."""
    if out_dtype is None:
        return np.dtype(np.int32 if scales is None else np.float32)
    try:
        dtype = np.dtype(out_dtype)
    except TypeError:
        dtype = None
    if dtype not in (np.int32, np.float32, np.int8, np.uint8):
        raise TypeError(f"out_dtype: got {out_dtype!r}, takes int32, float32, int8 or uint8")
    if (dtype == np.int32) != (scales is None):
        raise ValueError(f"out_dtype: got {dtype} {'without' if scales is None else 'with'} scales; "
                         "int32 is the output without scales, float32, int8 and uint8 need them")
    return dtype


class _Epilogue:
    """What happens to the accumulators, checked: the arguments of the binding after `out`."""

    __slots__ = ("dtype", "values", "per_row")

    def __init__(self, m, n, scales, row_scales, bias, activation, out_dtype, out_scale, out_zero_point, requant):
        self.dtype = dtype = _output_dtype(scales, out_dtype)
        quantized = dtype.itemsize == 1
        if requant not in ("float", "fixed"):
            raise ValueError(f"requant: got {requant!r}, takes 'float' or 'fixed'")
        if scales is None:
            for name, value in (("row_scales", row_scales), ("activation", activation)):
                if value is not None:
                    raise ValueError(f"{name}: only applies when scales are given")
        if not quantized:
            if out_scale is not None:
                raise ValueError(f"out_scale: only applies to int8 and uint8 output, not to {dtype}")
            if requant == "fixed":
                raise ValueError(f"requant: 'fixed' only applies to int8 and uint8 output, not to {dtype}")
        elif out_scale is None:
            raise ValueError(f"out_scale: needed for {dtype} output")

        if scales is not None:
            scales = _one_or_each(scales, "scales", n, arguments.float_parameter)
        if row_scales is not None:
            row_scales = arguments.float_parameter(row_scales, "row_scales", (m,))
        if bias is not None:
            bias = arguments.parameter(bias, "bias")
            if bias.dtype != np.int32 and bias.dtype.kind != "f":
                raise TypeError(f"bias: got dtype {bias.dtype}, takes float32 or int32")
            if bias.shape != (n,):
                raise ValueError(f"bias: got shape {bias.shape}, takes {(n,)}")
            if bias.dtype == np.int32:
                bias = arguments.integer_parameter(bias, "bias", (n,))
            elif scales is None:
                raise ValueError(f"bias: got dtype {bias.dtype}, takes int32 when no scales are given")
            else:
                bias = arguments.float_parameter(bias, "bias", (n,))
        low, high = _clamp_bounds(activation)
        out_type = _INT8_RANGES.get(dtype, _INT8_RANGES[np.dtype(np.int8)])
        out_scale = 1.0 if out_scale is None else float(arguments.float_parameter(out_scale, "out_scale", ()))
        out_zero_point = arguments.scalar(out_zero_point, "out_zero_point", *(
            (out_type["qmin"], out_type["qmax"]) if quantized else (0, 0)))

        if requant == "fixed":
            if row_scales is not None:
                raise NotImplementedError("row_scales: not available with requant='fixed'")
            if bias is not None and bias.dtype != np.int32:
                raise NotImplementedError("bias: requant='fixed' takes an int32 bias, in steps of scales")
        output = {np.dtype(np.int32): _core.OUT_INT32, np.dtype(np.float32): _core.OUT_FLOAT32}.get(
            dtype, _core.OUT_FIXED if requant == "fixed" else _core.OUT_QUANTIZED)
        self.values = (output, scales, row_scales, bias, low, high, out_scale, out_zero_point, out_type)
        self.per_row = row_scales is not None

    def multiply(self, a, packed, a_zero_point, out):
        output, *rest = self.values
        _core.int8_gemm(a, packed._buffer, a_zero_point, output, out, *rest)


def _right_hand_side(b_q, b_zero_point):
    """(array or PackedB, zero points to pack it with)."""
    if isinstance(b_q, PackedB):
        if np.ndim(b_zero_point) or b_zero_point != 0:
            raise ValueError("b_zero_point: a PackedB carries its own; give it to pack_b")
        return b_q, None
    b = arguments.byte_array(b_q, "b_q")
    if b.ndim < 2:
        raise ValueError(f"b_q: got {b.ndim} dimension(s), takes [..., K, N]")
    return b, _one_or_each(b_zero_point, "b_zero_point", b.shape[-1], arguments.integer_parameter)


def int8_gemm(a_q, b_q, scales=None, *, a_zero_point=0, b_zero_point=0, row_scales=None, bias=None,
              activation=None, out_dtype=None, out_scale=None, out_zero_point=0, requant="float", out=None):
    """Multiply int8 or uint8 matrices exactly, and scale, clamp or requantize the result.

    ``acc[m, n] = sum over k of (a_q[m, k] - a_zero_point) * (b_q[k, n] - b_zero_point)``

    Parameters
    ----------
    a_q : int8 or uint8 array
        [..., M, K], any strides, without a copy.
    b_q : int8 or uint8 array, or PackedB
        [..., K, N], any strides; packed anew in each call unless it is a `PackedB`.
    scales : float or float array, optional
        Scalar or [N]: activation scale times weight scale. Without scales the result is int32.
    a_zero_point : int or integer array, default 0
        Scalar or [M], in a_q's range.
    b_zero_point : int or integer array, default 0
        Scalar or [N], in b_q's range; a `PackedB` has its own.
    row_scales : float array, optional
        [M], or one for all rows: one more factor a row (per-token activations).
    bias : float32 or int32 array, optional
        [N]. int32 is added to acc exactly, in every output mode (the only bias without scales); float32 in real units.
    activation : None, "relu", "relu6" or (low, high), optional
        Clamp in real units, fused.
    out_dtype : dtype, optional
        float32 (default with scales), int8 or uint8; int32 without scales.
    out_scale : float
        For int8 and uint8 output: its step.
    out_zero_point : int, default 0
        For int8 and uint8 output, in its range.
    requant : {"float", "fixed"}
        How int8 and uint8 output is rounded; see Notes.
    out : ndarray, optional
        Of the result's exact shape and dtype; may be strided, may not share memory with an input.

    Returns
    -------
    int32, float32, int8 or uint8 ndarray
        [..., M, N]; leading dimensions broadcast as in `numpy.matmul`.

    Raises
    ------
    TypeError
        An argument's dtype is not one that it takes.
    ValueError
        Shapes do not match, a scale is not finite and > 0, a zero point is out of range, a bias is not finite, scales
        overflow float32 when combined, or b_q was packed for another ISA than the selected one.
    NotImplementedError
        requant="fixed" with row_scales, a float bias, or a K beyond 32-bit accumulators.

    Notes
    -----
    Every result is bit-identical on every processor.

    * int32: exact modulo 2**32, as NumPy.
    * float32: ``float32(acc) * (scales[n] * row_scales[m]) + bias[n]``, then the clamp; each operation rounded to
      float32 once, in this order. Where 32 bits might not hold acc, it is computed in 64 (K up to 2**23).
    * int8, uint8: ``saturate(round_half_even(float32(acc) * (scales[n] / out_scale * row_scales[m]) + bias[n] /
      out_scale) + out_zero_point)``, within the quantized clamp bounds.
    * requant="fixed": TFLite's reference arithmetic with double rounding, in integers. scales[n] / out_scale (in
      float64) becomes a 31-bit multiplier q31 and a power of two. acc times 2**max(e, 0), saturated; times q31 / 2**31,
      rounded to nearest with ties up; divided by 2**max(-e, 0), rounded to nearest with ties away from zero
      (gemmlowp's SaturatingRoundingDoublingHighMul and RoundingDivideByPOT).

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> a = np.array([[1, 2, 3]], np.uint8)
    >>> b = np.array([[1, -1], [2, -2], [3, -3]], np.int8)
    >>> qkernels.int8_gemm(a, b)
    array([[ 14, -14]], dtype=int32)
    >>> qkernels.int8_gemm(a, b, [0.5, 0.25], activation="relu")
    array([[7., 0.]], dtype=float32)
    """
    a = arguments.byte_array(a_q, "a_q")
    if a.ndim < 2:
        raise ValueError(f"a_q: got {a.ndim} dimension(s), takes [..., M, K]")
    b, b_zero_point = _right_hand_side(b_q, b_zero_point)
    m, n = a.shape[-2], b.shape[-1]
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"b_q: got K = {b.shape[-2]} (shape {b.shape}), a_q has K = {a.shape[-1]} (shape {a.shape})")
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"b_q: leading dimensions {b.shape[:-2]} do not broadcast with a_q's {a.shape[:-2]}") from None
    a_zero_point = _one_or_each(a_zero_point, "a_zero_point", m, arguments.integer_parameter)
    epilogue = _Epilogue(m, n, scales, row_scales, bias, activation, out_dtype, out_scale, out_zero_point, requant)
    output = arguments.Output(out, (*batch, m, n), epilogue.dtype, "a_q", a, b, scales, row_scales, bias)
    result = output.buffer

    if b_zero_point is None or b.ndim == 2:
        packed = b if b_zero_point is None else PackedB(b, b_zero_point)
        if a.flags.c_contiguous and len(a_zero_point) == 1 and not epilogue.per_row:
            a, result = a.reshape(math.prod(batch) * m, a.shape[-1]), result.reshape(math.prod(batch) * m, n)
            batch = ()
        for index in np.ndindex(batch):
            epilogue.multiply(a[index], packed, a_zero_point, result[index])
        return output.done()

    a, b = np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, (*batch, *b.shape[-2:]))
    for index in np.ndindex(batch):
        epilogue.multiply(a[index], PackedB(b[index], b_zero_point), a_zero_point, result[index])
    return output.done()
