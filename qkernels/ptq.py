"""Float weights that quantize better: smoothed, equalized, and biases that make up for the mean error."""

import itertools

import numpy as np

from . import _arguments as arguments
from . import _core
from .statistics import InputStatistics

SWEEPS = 1000  # over a chain of layers, at most
SETTLED = 1e-7  # a sweep whose factors are 1 but for so much is the last


@np.errstate(over="ignore")
@_core.in_default_floating_mode
def smooth(weights, statistics, alpha=0.5):
    """Move the range of a few large inputs into the weights: SmoothQuant [1]_.

    Parameters
    ----------
    weights : sequence of float32 arrays
        [N, K] each, of the linear layers that share an input, as those of query, key and value do.
    statistics : InputStatistics
        Of that input.
    alpha : float, default 0.5
        How much of the range is moved, 0 to 1.

    Returns
    -------
    scales : float32 ndarray
        [K], > 0: the input is to be divided by them, which `divide_outputs` does in the layer before.
    smoothed : list of float32 ndarrays
        The weights, their columns multiplied by the scales.

    Raises
    ------
    TypeError
        A weight is not float32, or statistics is something else.
    ValueError
        Weights are missing, not 2-D or not finite, their K differ from that of statistics, or alpha is not in 0 to 1;
        a result would not be finite.

    Notes
    -----
    ``scale = max|x|**alpha / max|w|**(1 - alpha)`` of each column, over all weights; 1 where either is 0. The products
    are those of before but for the rounding of float32.

    References
    ----------
    .. [1] G. Xiao, J. Lin, M. Seznec, H. Wu, J. Demouth, S. Han, "SmoothQuant: Accurate and efficient post-training
       quantization for large language models", 2022, arXiv:2211.10438.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels import ptq
    >>> from qkernels.calibration import InputStatistics
    >>> x, w = np.float32([[1, -64], [0.5, 16]]), np.float32([[1, 0.25], [-0.5, 1]])
    >>> scales, (smoothed,) = ptq.smooth([w], InputStatistics(2).observe(x))
    >>> scales, bool(np.allclose(x / scales @ smoothed.T, x @ w.T))
    (array([1., 8.], dtype=float32), True)
    """
    weights = [_weight(w, "weights") for w in weights]
    if not weights:
        raise ValueError("weights: got none, takes those of one layer or more")
    for w in weights:
        _check_statistics(statistics, w, "weights")
    alpha = _unit(alpha, "alpha")
    of_inputs = statistics.max_abs.astype(np.float64)
    of_weights = np.max([_ranges(w, 0) for w in weights], axis=0).astype(np.float64)
    is_used = (of_inputs > 0) & (of_weights > 0)
    of_inputs, of_weights = (np.where(is_used, x, 1) for x in (of_inputs, of_weights))
    scales = of_inputs**alpha / of_weights ** (1 - alpha)
    scales = scales.clip(np.finfo(np.float32).tiny, np.finfo(np.float32).max).astype(np.float32)
    return scales, _finite([w * scales for w in weights], "weights")


@np.errstate(over="ignore")
@_core.in_default_floating_mode
def divide_outputs(scales, *parameters):
    """Divide the outputs of a layer by folding the scales into its parameters.

    Parameters
    ----------
    scales : float32 array
        [C], > 0, one for each output, as `smooth` gives them.
    *parameters : float32 arrays
        [C] or [C, ...]: the weight and bias of a linear layer, or of a layer normalization.

    Returns
    -------
    list of float32 ndarrays
        The parameters divided by the scales along their first axis.

    Raises
    ------
    TypeError
        An array is not float32.
    ValueError
        scales is not 1-D, finite and positive, a parameter has another length, or a result would not be finite.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels import ptq
    >>> ptq.divide_outputs(np.float32([1, 8]), np.float32([3, 4]), np.float32([[1, 2], [4, 8]]))
    [array([3. , 0.5], dtype=float32), array([[1. , 2. ],
           [0.5, 1. ]], dtype=float32)]
    """
    scales = arguments.float_array(scales, "scales")
    if scales.ndim != 1 or not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError("scales: takes one dimension of finite numbers > 0")
    parameters = [arguments.float_array(p, "parameters") for p in parameters]
    for p in parameters:
        if p.shape[:1] != scales.shape:
            raise ValueError(f"parameters: got shape {p.shape}, takes {scales.shape} or more dimensions")
    return _finite([p / scales.reshape(-1, *[1] * (p.ndim - 1)) for p in parameters], "parameters")


@np.errstate(over="ignore")
@_core.in_default_floating_mode
def equalize(weights, biases=None):
    """Equalize the ranges of the channels between linear layers: cross-layer equalization [1]_.

    Parameters
    ----------
    weights : sequence of float32 arrays
        [C1, C0], [C2, C1], ... of layers each of which takes the outputs of the one before, through ReLU, another
        function with ``f(s x) = s f(x)`` for s > 0, or nothing.
    biases : sequence of float32 arrays or None, optional
        [C1], [C2], ...; None for a layer without one.

    Returns
    -------
    weights, biases : lists of float32 ndarrays
        Of a network with the same outputs but for the rounding of float32. Biases that were None are.

    Raises
    ------
    TypeError
        An array is not float32.
    ValueError
        There are no weights, a shape does not go with its neighbors, or a value is not finite or would not be.

    Notes
    -----
    A channel's weights on the way in are divided, and those on the way out multiplied by
    ``sqrt(max|w_in| / max|w_out|)``, after which both have the same range; channels that are not used stay as they are.
    In a chain of more than two layers this is repeated until all ranges are equal to seven digits, at most 1000 times.

    References
    ----------
    .. [1] M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-free quantization through weight equalization and
       bias correction", 2019, arXiv:1906.04721.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels import ptq
    >>> (first, second), _ = ptq.equalize([np.float32([[8, -2], [0.5, 1]]), np.float32([[0.5, 4]])])
    >>> first, second
    (array([[ 2. , -0.5],
           [ 1. ,  2. ]], dtype=float32), array([[2., 2.]], dtype=float32))
    """
    weights = [_weight(w, "weights") for w in weights]
    if not weights:
        raise ValueError("weights: got none, takes those of one layer or more")
    for before, w in itertools.pairwise(weights):
        if w.shape[1] != len(before):
            raise ValueError(f"weights: got shape {w.shape} after {before.shape}, takes [N, {len(before)}]")
    biases = [None] * len(weights) if biases is None else list(biases)
    if len(biases) != len(weights):
        raise ValueError(f"biases: got {len(biases)}, takes {len(weights)}")
    biases = [b if b is None else _vector(b, "biases", len(w)) for b, w in zip(biases, weights)]

    # Factors that outputs of a layer are divided by; the inputs of the first and the outputs of the last stay.
    factors = [np.ones(w.shape[1]) for w in weights] + [np.ones(len(weights[-1]))]

    def scaled(i):
        return weights[i] * factors[i] / factors[i + 1][:, None]

    for _ in range(SWEEPS):
        unsettled = 0
        for i in range(1, len(weights)):
            coming, leaving = _ranges(scaled(i - 1), 1), _ranges(scaled(i), 0)
            is_used = (coming > 0) & (leaving > 0)
            factor = np.sqrt(np.where(is_used, coming, 1) / np.where(is_used, leaving, 1))
            factors[i] *= factor
            unsettled = max(unsettled, np.abs(factor - 1).max(initial=0))
        if unsettled <= SETTLED:
            break
    new_biases = [b if b is None else (b / f).astype(np.float32) for b, f in zip(biases, factors[1:])]
    _finite([b for b in new_biases if b is not None], "biases")
    return _finite([scaled(i).astype(np.float32) for i in range(len(weights))], "weights"), new_biases


@np.errstate(over="ignore")
@_core.in_default_floating_mode
def correct_bias(bias, w, quantized, statistics):
    """The bias with which a quantized layer has no mean error: bias correction [1]_.

    Parameters
    ----------
    bias : float32 array or None
        [N], of the layer; None for zeros.
    w : float32 array
        [N, K], its weight.
    quantized : QuantizedWeight or float32 array
        The same weight as the products see it.
    statistics : InputStatistics
        Of the inputs of the layer.

    Returns
    -------
    float32 ndarray
        [N]: ``bias - (quantized - w) @ mean of x``.

    Raises
    ------
    TypeError
        An array is not float32, or statistics is something else.
    ValueError
        A shape does not match, or a value is not finite or would not be.

    Notes
    -----
    Summed in float64 and rounded once. Over the inputs that were observed, the mean of ``x @ quantized.T + bias`` is
    then that of the float layer but for the rounding of float32.

    References
    ----------
    .. [1] M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-free quantization through weight equalization and
       bias correction", 2019, arXiv:1906.04721.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> from qkernels import ptq
    >>> from qkernels.calibration import InputStatistics
    >>> x, w = np.float32([[1, 3], [3, 5]]), np.float32([[0.75, 1.0]])
    >>> ptq.correct_bias(None, w, np.float32([[1.0, 1.0]]), InputStatistics(2).observe(x))
    array([-0.5], dtype=float32)
    """
    w = _weight(w, "w")
    if hasattr(quantized, "dequantize"):
        quantized = quantized.dequantize()
    quantized = _weight(quantized, "quantized")
    if quantized.shape != w.shape:
        raise ValueError(f"quantized: got shape {quantized.shape}, takes {w.shape}")
    _check_statistics(statistics, w, "w")
    bias = np.zeros(len(w), np.float32) if bias is None else _vector(bias, "bias", len(w))
    corrected = (bias - (quantized.astype(np.float64) - w) @ statistics.mean).astype(np.float32)
    return _finite([corrected], "bias")[0]


def _ranges(w, axis):
    """max|w| along an axis, 0 where there is nothing."""
    return np.abs(w).max(axis=axis, initial=0)


def _finite(arrays, name):
    if not all(np.isfinite(x).all() for x in arrays):
        raise ValueError(f"{name}: would have values beyond float32's range")
    return arrays


def _weight(x, name):
    x = arguments.float_array(x, name)
    if x.ndim != 2:
        raise ValueError(f"{name}: got {x.ndim} dimension(s), takes [N, K]")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: contains NaN or infinity")
    return x


def _vector(x, name, length):
    x = arguments.float_array(x, name)
    if x.shape != (length,):
        raise ValueError(f"{name}: got shape {x.shape}, takes {(length,)}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: contains NaN or infinity")
    return x


def _check_statistics(statistics, w, name):
    if not isinstance(statistics, InputStatistics):
        raise TypeError(f"statistics: got {type(statistics).__name__}, takes InputStatistics")
    if w.shape[1] != statistics.k:
        raise ValueError(f"{name}: got shape {w.shape}, takes [N, {statistics.k}], statistics being of such rows")
    if not statistics.count:
        raise ValueError("statistics: has seen no rows")


def _unit(x, name):
    value = arguments.parameter(x, name)
    if value.ndim or value.dtype.kind not in "iuf":
        raise TypeError(f"{name}: got {x!r}, takes one number")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {x!r}, takes 0 to 1")
    return float(value)
