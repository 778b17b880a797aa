"""Scales and zero points of affine quantization: the ranges of values, and how parameters follow from them."""

from collections import namedtuple

import numpy as np

from . import _arguments as arguments
from . import _core, ranges
from .affine import Layout

METHODS = ("minmax", "percentile", "mse", "entropy")


class QParams(namedtuple("QParams", "scale zero_point dtype axis group_size")):
    """Parameters of an affine quantization, as `choose_qparams` returns them.

    Attributes
    ----------
    scale : float32 ndarray
        Step between neighboring levels. Shape () per tensor, [C] per axis, x.shape[:-1] + (groups,) per group.
    zero_point : int8 or uint8 ndarray
        The level that means 0.0; the shape of `scale`.
    dtype : str
        Name of the quantized type.
    axis, group_size : int or None
        How the scales lie over the array.
    """

    __slots__ = ()


class Scheme:
    """How scales and zero points follow from ranges."""

    __slots__ = ("qtype", "symmetric", "full_range")

    def __init__(self, qtype, symmetric, full_range):
        """qtype: the name of a quantized type."""
        if full_range and not symmetric:
            raise ValueError("full_range: only applies to symmetric quantization; asymmetric ranges are always full")
        self.qtype, self.symmetric, self.full_range = qtype, bool(symmetric), bool(full_range)

    def spread(self, low, high):
        """Scales and zero points whose levels lie from low to high, arrays of any shape, and include 0."""
        ends = (_core.contiguous(np.asarray(end, np.float32)).reshape(-1) for end in (low, high))
        return self._chosen(_core.qparams_of_ranges, ends, low.shape)

    def of_values(self, x, layout):
        """Those of the least and greatest of contiguous values that share a scale."""
        return self._chosen(_core.choose_qparams, (x, layout.struct), layout.scale_shape)

    def _chosen(self, choose, values, shape):
        qtype = arguments.qtype(self.qtype)
        scale, zero_point = np.empty(shape, np.float32), np.empty(shape, np.int32)
        choose(*values, qtype.range, {"symmetric": self.symmetric, "full_range": self.full_range}, scale, zero_point)
        return scale, zero_point.astype(qtype.storage)


@_core.in_default_floating_mode
def choose_qparams(x, dtype="int8", *, axis=None, group_size=None, symmetric=True, method="minmax",
                   percentile=None, full_range=False):
    """Scale and zero point that make the range of the values fit a quantized type.

    Parameters
    ----------
    x : float32 array
        Any shape and strides (copied once when not C-contiguous).
    dtype : str, default "int8"
        "int8", "uint8", "int4", "uint4", "int2" or "uint2".
    axis : int, optional
        The axis that has its own scales; None for one scale per tensor. ``axis=0`` of a 2-D input is per token.
    group_size : int, optional
        Blocks of so many values along the last axis have their own scales; the last block may be short.
    symmetric : bool, default True
        Zero point 0 (unsigned types: the middle level) and a range symmetric around it, int8 using [-127, 127].
        Otherwise the range from the least to the greatest value, made to include 0 exactly.
    method : {"minmax", "percentile", "mse", "entropy"}
        How the range is chosen: all values, or a part beyond which values are clipped.

        * "percentile": symmetric, the percentile of ``|x|``; otherwise from the (100 - p) / 2 to the other one of x.
        * "mse": that of the least squared error, among the whole range and 97.5, 95, ... 20 % of it [1]_.
        * "entropy": cut where the histogram of ``|x|`` loses the least information, by Kullback and Leibler's
          divergence [2]_. For activations: it takes thousands of values, and many of them near 0, to be meaningful.
    percentile : float, optional
        Of method "percentile": more than 0, at most 100; None for 99.99.
    full_range : bool, default False
        Symmetric only: use the whole range, for int8 scale = max|x| / 127.5 instead of max|x| / 127.

    Returns
    -------
    QParams
        With `scale` (float32) and `zero_point` (int8 or uint8) of shape () per tensor, [C] per axis,
        x.shape[:-1] + (ceil(K / group_size),) per group.

    Raises
    ------
    TypeError
        x is not float32, dtype is unknown, or percentile is not a number.
    ValueError
        x has NaN or infinities, or a parameter is out of range.

    Notes
    -----
    In float32: symmetric ``scale = max|x| / 127`` (7, 1 for 4 and 2 bits); asymmetric
    ``scale = (max - min) / (qmax - qmin)`` and ``zero_point = saturate(round_half_even(qmin - min / scale))``, as
    ONNX DynamicQuantizeLinear. An all-zero channel gets scale 1.0; no scale is below 2**-126. With other methods
    the ends of the range take the place of min and max:

    * "percentile": `numpy.percentile` (linear) in float64.
    * "mse": errors squared and summed in float64; of equal ones the largest range.
    * "entropy": ``|x|`` is counted in 2048 bins from 0 to its maximum; the first, which has the zeros, counts like the
      second, as in NVIDIA's pytorch-quantization. For each i from L = 128 (8 and 2 for 4 and 2 bits) to 2048, P is the
      first i bins, with all values beyond added to the last; Q the same bins without these, joined to L levels (bin b
      to level floor(b L / i)), whose counts are spread evenly over the bins of theirs that are not empty. Where the
      last bin of Q is empty and that of P is not, it gets 1e-4 of a value, as empty bins do in ONNX Runtime. The i of
      the least divergence of Q from P, the first of equals (to 1e-9 bits a value), cuts ``|x|`` at (i + 1/2) bins, or
      at its maximum if that is less.

    What is beyond a range becomes the outermost level of the quantized type, as `quantize` saturates: -128, not -127.
    The result is bit-identical on every processor.

    References
    ----------
    .. [1] Y. Choukroun, E. Kravchik, F. Yang, P. Kisilev, "Low-bit quantization of neural networks for efficient
       inference", 2019, arXiv:1902.06822.
    .. [2] S. Migacz, "8-bit inference with TensorRT", GPU Technology Conference, 2017.

    Examples
    --------
    The range [0, 6] in 8 bits, unsigned: steps of 0.0235, and 3.0 becomes 128, which means 3.01.

    >>> import numpy as np, qkernels
    >>> qp = qkernels.choose_qparams(np.array([0, 6], np.float32), "uint8", symmetric=False)
    >>> print(f"{qp.scale:.4f} {qp.zero_point}")
    0.0235 0
    >>> q = qkernels.quantize(np.array([3.0], np.float32), qp.scale, qp.zero_point, dtype="uint8")
    >>> print(q, qkernels.dequantize(q, qp.scale, qp.zero_point).round(2))
    [128] [3.01]

    An outlier among 10,000 values: int4 is better off without it.

    >>> x = np.append(np.linspace(-1, 1, 10_000), 2).astype(np.float32)
    >>> for method in ("minmax", "percentile", "mse"):
    ...     print(f"{method}: {7 * qkernels.choose_qparams(x, 'int4', method=method).scale:.2f}")
    minmax: 2.00
    percentile: 1.00
    mse: 0.95
    """
    qtype = arguments.qtype(dtype)
    x = arguments.float_array(x, "x")
    layout = Layout(x.shape, axis, group_size)
    scheme = Scheme(qtype.name, symmetric, full_range)
    percentile = checked_method(method, percentile, METHODS)
    if method == "minmax":
        scale, zero_point = scheme.of_values(_core.contiguous(x), layout)
    elif not np.isfinite(x).all():
        raise ValueError("x: contains NaN or infinity, so it has no finite range")
    else:
        ends = np.zeros((2, *layout.scale_shape), np.float32)
        for values, place in _sharing(x, axis, group_size):
            if values.size:
                found = ranges.of_rows(values.reshape(-1, values.shape[-1]), scheme, method, percentile)
                ends[place] = np.reshape(found, (2, *values.shape[:-1]))
        scale, zero_point = scheme.spread(ends[0, ...], ends[1, ...])
    return QParams(scale[()], zero_point[()], qtype.name, axis, group_size)


def checked_method(method, percentile, methods):
    """The percentile that a method of choosing ranges uses, or None."""
    if method not in methods:
        raise ValueError(f"method: got {method!r}, takes one of {', '.join(methods)}")
    if method != "percentile":
        if percentile is not None:
            raise ValueError("percentile: only applies to method 'percentile'")
        return None
    return 99.99 if percentile is None else arguments.positive(percentile, "percentile", 100)


def _sharing(x, axis, group_size):
    """Pairs of an array, whose last axis has the values that share a scale, and the place of their scales."""
    if group_size is not None:
        size = max(min(group_size, x.shape[-1]), 1)
        groups = x.shape[-1] // size
        whole, rest = np.split(x, [groups * size], axis=-1)
        yield whole.reshape(*x.shape[:-1], groups, size), np.s_[..., :groups]
        yield rest[..., None, :], np.s_[..., groups:]
    elif axis is not None:
        rows = np.moveaxis(x, axis, 0)
        yield rows.reshape(len(rows), x.size // max(len(rows), 1)), ...
    else:
        yield x.reshape(x.size), ...
