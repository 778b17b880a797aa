"""Quantization-aware training: the gradients of `qkernels.fake_quantize` for fixed and learned scales, on NumPy arrays.

The forward pass is `qkernels.fake_quantize`; the straight-through estimator [1]_ takes its rounding for the identity
when it is differentiated. `qkernels.torch` has the same as modules of PyTorch.

References
----------
.. [1] Y. Bengio, N. Léonard, A. Courville, "Estimating or propagating gradients through stochastic neurons for
   conditional computation", 2013, arXiv:1308.3432.
"""

import math

import numpy as np

from . import _arguments as arguments
from . import _core
from .affine import Layout, parameters_of
from .groups import row_sums

__all__ = ["fake_quantize_backward", "learned_fake_quantize_backward", "lsq_grad_factor", "lsq_scale"]

SMALLEST_SCALE = 2.0**-126  # as of choose_qparams


def _gradients(dy, x, scale, zero_point, dtype, axis, group_size, learned):
    """dx, and where `learned` (the scales, dscale, dclip), of the shape of the scales, else None."""
    qtype = arguments.qtype(dtype)
    dy, x = arguments.float_array(dy, "dy"), arguments.float_array(x, "x")
    if dy.shape != x.shape:
        raise ValueError(f"dy: got shape {dy.shape}, takes that of x, {x.shape}")
    layout = Layout(x.shape, axis, group_size)
    scale, zero_point = parameters_of(scale, zero_point, layout)
    dx = _core.empty(x.shape, np.dtype(np.float32), "x")
    sums = [np.empty(layout.scale_shape, np.float64) if learned else None for _ in range(2)]
    _core.fake_quantize_grad(_core.contiguous(dy), _core.contiguous(x), layout.struct, qtype.range, scale,
                             zero_point, dx, *sums)
    return dx, (scale, *sums) if learned else None


@_core.in_default_floating_mode
def fake_quantize_backward(dy, x, scale, zero_point=0, *, dtype="int8", axis=None, group_size=None):
    """The gradient of `fake_quantize` with respect to x, straight through.

    Parameters
    ----------
    dy : float32 array
        The gradient of the loss with respect to ``fake_quantize(x, ...)``, of x's shape.
    x, scale, zero_point, dtype, axis, group_size
        Those of the forward pass; see `qkernels.quantize`.

    Returns
    -------
    float32 ndarray
        Of x's shape: dy where ``qmin <= round_half_even(x / scale) + zero_point <= qmax``, else 0. Bit-identical on
        every processor.

    Raises
    ------
    TypeError
        An argument's dtype is not one that it takes.
    ValueError
        x has NaN, a scale is not finite and > 0, a zero point is out of range, a shape does not match.

    Notes
    -----
    The rounded value decides whether a value is clipped, as in `torch.fake_quantize_per_tensor_affine`: one that is
    less than half a step outside still rounds into the range, and keeps its gradient.

    Examples
    --------
    1.4 rounds to 1, the greatest int2; 1.6 does not fit, and neither does -2.6.

    >>> import numpy as np
    >>> from qkernels import qat
    >>> x = np.array([-2.6, -2.4, 0.3, 1.4, 1.6], np.float32)
    >>> print(qat.fake_quantize_backward(np.full(5, 0.5, np.float32), x, 1.0, dtype="int2"))
    [0.  0.5 0.5 0.5 0. ]
    """
    return _gradients(dy, x, scale, zero_point, dtype, axis, group_size, learned=False)[0]


@_core.in_default_floating_mode
def learned_fake_quantize_backward(dy, x, scale, zero_point=0, *, dtype="int8", axis=None, group_size=None,
                                   grad_factor=1.0):
    """The gradients of `fake_quantize` with respect to x, to the scale (LSQ [1]_) and to the zero point (LSQ+ [2]_).

    Parameters
    ----------
    dy : float32 array
        The gradient of the loss with respect to ``fake_quantize(x, ...)``, of x's shape.
    x, scale, zero_point, dtype, axis, group_size
        Those of the forward pass; see `qkernels.quantize`.
    grad_factor : float, default 1.0
        The gradients of scale and zero point are multiplied by it, as by `lsq_grad_factor`.

    Returns
    -------
    dx : float32 ndarray
        As `fake_quantize_backward`.
    dscale, dzero_point : float32 ndarray
        Of the shape of the scales: (), [C], or x.shape[:-1] + (groups,).

    Raises
    ------
    TypeError, ValueError
        As `fake_quantize_backward`; grad_factor is not greater than 0.

    Notes
    -----
    With ``t = x / scale`` in float32 and ``q = round_half_even(t) + zero_point``, the gradients are sums over the
    values that share a scale:

    * dscale: of ``dy * (round_half_even(t) - t)`` where q is in range, ``dy * (qmin - zero_point)`` where it is below,
      and ``dy * (qmax - zero_point)`` where it is above;
    * dzero_point: of ``-dy * scale`` where q is out of range.

    So are those of `torch._fake_quantize_learnable_per_tensor_affine`, which multiplies by the reciprocal of the scale
    where this divides. LSQ's paper compares t itself with the range, not q; that differs where t is outside by at most
    half a step.

    The result is bit-identical on every processor. The factors of dy are exact in float32, and their products in
    float64, in which they are summed, for dzero_point dy alone. Values that share a scale lie in runs in memory: a
    tensor or a group is one run; with an axis, one is what follows each index of it. Value i of a run is added to lane
    i % 8, run after run; then lanes 4 to 7 are added to 0 to 3, 2 and 3 to 0 and 1, and 1 to 0. The sums, for
    dzero_point times the scale, are multiplied by grad_factor in float64 and rounded to float32.

    References
    ----------
    .. [1] S. K. Esser, J. L. McKinstry, D. Bablani, R. Appuswamy, D. S. Modha, "Learned step size quantization",
       ICLR 2020, arXiv:1902.08153.
    .. [2] Y. Bhalgat, J. Lee, M. Nagel, T. Blankevoort, N. Kwak, "LSQ+: improving low-bit quantization through
       learnable offsets and better initialization", CVPR workshops 2020, arXiv:2004.09576.

    Examples
    --------
    0.3 would gain from a smaller step, 1.6, which is clipped, from a greater one.

    >>> import numpy as np
    >>> from qkernels import qat
    >>> for x in (0.3, 1.6):
    ...     dx, dscale, dzero_point = qat.learned_fake_quantize_backward([1.0], [x], 1.0, dtype="int2")
    ...     print(f"{dx[0]:.1f} {dscale:.1f} {dzero_point:.1f}")
    1.0 -0.3 0.0
    0.0 1.0 -1.0
    """
    grad_factor = arguments.positive(grad_factor, "grad_factor", np.finfo(np.float32).max)
    dx, (scale, dscale, dclip) = _gradients(dy, x, scale, zero_point, dtype, axis, group_size, learned=True)
    with np.errstate(over="ignore", invalid="ignore"):  # gradients that overflow do so in any arithmetic
        dscale = (dscale * grad_factor).astype(np.float32)
        dzero_point = ((0.0 - scale.astype(np.float64) * dclip) * grad_factor).astype(np.float32)
    return dx, dscale[()], dzero_point[()]


@_core.in_default_floating_mode
def lsq_scale(w, dtype="int4", *, axis=None):
    """The scale from which LSQ starts to learn: ``2 * mean(|w|) / sqrt(qmax)``.

    Parameters
    ----------
    w : float32 array
        The values to quantize: a weight, or a batch of activations.
    dtype : str, default "int4"
        See `qkernels.quantize`.
    axis : int, optional
        The axis that has its own scales; None for one scale.

    Returns
    -------
    float32 ndarray
        () or [C]. 1.0 where all values are zero, else at least 2**-126 and at most the largest float32. The mean is
        taken in float64, in the same order on every processor.

    Raises
    ------
    TypeError
        w is not float32, or dtype is unknown.
    ValueError
        w has NaN or infinities, or axis is out of range.

    References
    ----------
    .. [1] S. K. Esser et al., "Learned step size quantization", ICLR 2020, arXiv:1902.08153.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels import qat
    >>> print(qat.lsq_scale(np.array([[1, -2], [3, 6]], np.float32), "int2", axis=0))
    [3. 9.]
    """
    qtype = arguments.qtype(dtype)
    w = arguments.float_array(w, "w")
    if not np.isfinite(w).all():
        raise ValueError("w: contains NaN or infinity, so it has no mean")
    shape = Layout(w.shape, axis, None).scale_shape
    rows = np.moveaxis(w, axis, 0).reshape(shape[0], -1 if shape[0] else 0) if shape else w.reshape(1, -1)
    means = row_sums(np.abs(rows)) / max(rows.shape[1], 1)
    scales = (2 * means / math.sqrt(qtype.qmax)).clip(SMALLEST_SCALE, np.finfo(np.float32).max)
    scales = np.where(means == 0, 1.0, scales)
    return scales.astype(np.float32).reshape(shape)[()]


@_core.in_default_floating_mode
def lsq_grad_factor(n, dtype="int4"):
    """LSQ's factor of the gradients of a scale: ``1 / sqrt(n * qmax)``, which makes steps of scale and weights alike.

    Parameters
    ----------
    n : int
        How many values share the scale: for weights those of a tensor or channel, for activations those of one example.
    dtype : str, default "int4"
        See `qkernels.quantize`.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        n is not an integer, or dtype is unknown.
    ValueError
        n is less than 1.

    References
    ----------
    .. [1] S. K. Esser et al., "Learned step size quantization", ICLR 2020, arXiv:1902.08153.

    Examples
    --------
    >>> from qkernels import qat
    >>> qat.lsq_grad_factor(100, "int2")
    0.1
    """
    return 1 / math.sqrt(arguments.scalar(n, "n", 1, 2**62) * arguments.qtype(dtype).qmax)
