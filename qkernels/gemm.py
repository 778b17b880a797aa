"""Integer matrix products with zero points, scales, bias and requantization."""

from . import _core
from ._core import PackedB

__all__ = ["PackedB", "int8_gemm", "pack_b"]


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
    return PackedB(b_q, b_zero_point, transpose)


def int8_gemm(a_q, b_q, scales=None, *, a_zero_point=0, b_zero_point=0, row_scales=None, bias=None,
              activation=None, out_dtype=None, out_scale=None, out_zero_point=0, requant="float", out=None):
    """Multiply int8 or uint8 matrices exactly, and scale, clamp or requantize the result.

    ``acc[m, n] = sum over k of (a_q[m, k] - a_zero_point) * (b_q[k, n] - b_zero_point)``

    Parameters
    ----------
    a_q : int8 or uint8 array
        [..., M, K], any strides, without a copy.
    b_q : int8 or uint8 array, or PackedB
        [..., K, N], any strides; packed anew in each call, with few rows of a_q panel by panel without memory of its size,
        unless it is a `PackedB`.
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
    return _core.int8_gemm(a_q, b_q, scales, a_zero_point, b_zero_point, row_scales, bias, activation, out_dtype,
                           out_scale, out_zero_point, requant, out)
