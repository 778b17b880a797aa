"""Linear layers with quantized weights."""

import math

import numpy as np

from . import _arguments as arguments
from . import _core
from .weights import QuantizedWeight

# How x enters a product, and what is done to its result, as the C side counts them.
ACTIVATION_MODES = {("int8", "row"): 0, ("int8", "group"): 1, ("float32", "row"): 2}
SMOOTH_ACTIVATIONS = {"gelu": 1, "silu": 2}


@_core.in_default_floating_mode
def linear(x, qw, bias=None, *, activations="int8", activation_scales="row", activation=None, out=None):
    """A linear layer with a quantized weight: ``activation(x @ W.T + bias)``.

    Parameters
    ----------
    x : float32 array
        [..., K], any strides. float16 and bfloat16 (of ml_dtypes) are converted to float32 first.
    qw : QuantizedWeight
        [N, K].
    bias : float array, optional
        [N], finite.
    activations : {"int8", "float32"}
        How x enters the product. "int8": quantized as it comes, symmetric. "float32": at float32's accuracy; only the
        weight is quantized.
    activation_scales : {"row", "group"}
        For "int8": one scale for each row of x; or one for each block (see Notes), which follows x more closely where
        the sizes of its values differ along K.
    activation : None, "relu", "relu6", "gelu", "silu" or (low, high), optional
        Applied to the result, fused. "gelu" is ``x * Phi(x)``, the exact form, "silu" ``x / (1 + exp(-x))``; a pair is
        a clamp.
    out : float32 ndarray, optional
        [..., N]; may be strided, may not share memory with an input.

    Returns
    -------
    float32 ndarray
        [..., N].

    Raises
    ------
    TypeError
        An argument's dtype is not one that it takes.
    ValueError
        x has NaN or infinities, a shape does not match, the bias is not finite, a parameter is not one of those named,
        or qw was packed for another ISA than the selected one.

    Notes
    -----
    The result is bit-identical on every processor and with any number of threads. K is cut into blocks of B values,
    each within a group: B is the largest multiple of 32 up to 256 that divides group_size; without groups, or with one
    that takes in all of K, ``ceil(ceil(K / n) / 32) * 32`` with ``n = ceil(K / 256)``. If the weight was rotated
    (`QuantizedWeight.seed`), x is, too, by `hadamard`; if it has `QuantizedWeight.input_scales`, x is multiplied by
    them. Then it becomes int8 values a:

    * "int8", "row": ``a, s = dynamic_quantize(x, axis=0, dtype="int8", symmetric=True)`` of the rows.
    * "int8", "group": the same for each block, with ``choose_qparams(x, group_size=B)``.
    * "float32": block floating point. The values of a block are rounded to integers of 23 bits and sign, in steps of a
      power of two that the block shares, and these are taken apart into three digits of base 254, high, middle and low.

    For each block in order, exactly in integers and then each operation rounded to float32 once::

        acc = sum over the block of a * level                   level: code - zero point, or what the format says
        f = fma(float32(acc) * block_scale, scale, f)           "row" has no block_scale, and no such product
        y = ((f_high + f_middle) + f_low) * row_scale + bias    "int8" has one f, not three; row_scale s, or else 1

    then the clamp, or gelu or silu, whose own error is at most 4 units in the last place.

    x may have any finite values, and an infinity only comes out where the result itself is beyond float32:

    * Where y is not finite, it is computed anew in float64, from the same integers and scales, each operation rounded
      to float64 once (``f + acc * block_scale * scale``), and rounded to float32 before the clamp.
    * A scale s, or one of a block, that would be below 2**-126 is the least multiple of 2**-149, the least positive
      float32, that is enough: ``ceil(float32(max|x| * 2**149 / 127)) * 2**-149``.
    * Of a row for a rotated weight, or one with input scales, whose largest ``|x * input_scales|`` is not 0 and not in
      [2**-100, 2**100), ``x * input_scales * 2**-e``, rounded to float32 once, is taken in its place, with the e that
      brings this largest value to [0.5, 1); y is then always computed in float64, with ``row_scale * 2**e``.

    With "float32", what rounding x changes is at most the sum over the blocks of ``max|x| / 2**22 * sum|W|`` (nothing
    where max|x| is below 2**-127); to it comes the float32 rounding of the sums, which is that of a float32 product
    summed block by block. Taking floats apart to use integer products is the idea of [1]_, and with int8 units of [2]_.

    References
    ----------
    .. [1] K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, "Error-free transformations of matrix multiplication by using fast
       routines of matrix multiplication and its applications", Numerical Algorithms 59, 2012.
    .. [2] H. Ootomo, K. Ozaki, R. Yokota, "DGEMM on integer matrix multiplication unit", 2024, arXiv:2306.11975.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> w, x = np.eye(4, 32, dtype=np.float32), np.arange(32, dtype=np.float32)
    >>> qw = qkernels.quantize_weight(w, "int4", group_size=32, scale_dtype="float32")
    >>> qkernels.linear(x, qw, activations="float32", activation=(0, 2)).round(4)
    array([0., 1., 2., 2.], dtype=float32)
    """
    if not isinstance(qw, QuantizedWeight):
        raise TypeError(f"qw: got {type(qw).__name__}, takes a QuantizedWeight (see quantize_weight)")
    given, x = x, arguments.wide_array(x, "x")
    n, k = qw.shape
    if x.ndim == 0 or x.shape[-1] != k:
        raise ValueError(f"x: got shape {x.shape}, takes [..., {k}] for a weight of shape {qw.shape}")
    mode = _activation_mode(activations, activation_scales)
    is_smooth = isinstance(activation, str) and activation in SMOOTH_ACTIVATIONS
    low, high = -math.inf, math.inf
    if activation is not None and not is_smooth:
        low, high = arguments.clamp_bounds(activation, tuple(SMOOTH_ACTIVATIONS))
    output = _core.Output(out, (*x.shape[:-1], n), np.float32, "x", given, x, bias)
    if bias is not None:
        bias = arguments.linear_bias(bias, n)
    m = math.prod(x.shape[:-1])
    _core.linear(_core.contiguous(x).reshape(m, k), qw.packed, qw.input_scales, qw.seed, bias, mode,
                 SMOOTH_ACTIVATIONS[activation] if is_smooth else 0, low, high, output.buffer.reshape(m, n))
    return output.done()


def _activation_mode(activations, activation_scales):
    for name, value, takes in [("activations", activations, ("int8", "float32")),
                               ("activation_scales", activation_scales, ("row", "group"))]:
        if value not in takes:
            raise ValueError(f"{name}: got {value!r}, takes {takes[0]!r} or {takes[1]!r}")
    if (activations, activation_scales) not in ACTIVATION_MODES:
        raise ValueError("activation_scales: only applies to activations='int8'")
    return ACTIVATION_MODES[activations, activation_scales]
