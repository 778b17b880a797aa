"""What a candidate costs a layer: error, bytes and time. A candidate is a dict of options of `quantize_weight`."""

import functools
import inspect
import json
import math
import numbers
import statistics
import time

import numpy as np

from . import _arguments as arguments
from . import _core
from .layers import linear
from .quantizers import CALIBRATED, quantize_weight
from .rounding import output_error
from .statistics import InputStatistics, checked_statistics

MEASURES = ("hessian", "sqnr", "kl")
OPTIONS = {name: parameter.default for name, parameter in inspect.signature(quantize_weight).parameters.items()
           if name not in ("w", "calibration", "importance")}  # arrays and statistics are no options to write down
TIMED_CALLS = 9
DIGITS = 7  # of an error, as float32 has: the last ones of float64 depend on the processor's linear algebra


@_core.in_default_floating_mode
def sensitivity(w, candidates, *, measure="hessian", calibration=None, x=None, activations="int8"):
    """The error of a linear layer with each of some quantizations of its weight.

    Parameters
    ----------
    w : float32 array
        [N, K].
    candidates : sequence of dict
        Options of `quantize_weight`, "format" among them; not "importance", and not "calibration", which is given to
        the methods that need it.
    measure : {"hessian", "sqnr", "kl"}
        * "hessian": the squared error of the outputs on the inputs that calibration has seen, relative to the outputs:
          ``trace(E H E^T) / trace(W H W^T)``; of the weight alone.
        * "sqnr": the same on the inputs x, with the outputs of `linear`: the ratio of noise to signal, which is
          ``10 ** (-SQNR / 10)`` of an SQNR in dB.
        * "kl": the Kullback-Leibler divergence from the softmax of the float outputs to that of the outputs of
          `linear`, the mean over the rows of x; for a layer whose outputs are logits.
    calibration : InputStatistics, optional
        Needed for "hessian" and for some methods.
    x : float32 array, optional
        [..., K], needed for "sqnr" and "kl".
    activations : {"int8", "float32"}
        Of `linear`.

    Returns
    -------
    float64 ndarray
        An error for each candidate, >= 0; relative ones are absolute where all outputs are 0.

    Raises
    ------
    TypeError, ValueError
        A candidate is not one (found before any is measured), or an argument is not as said above.

    Notes
    -----
    Computed in float64 from the float32 results of `QuantizedWeight.dequantize` and `linear`, and rounded to 7 digits,
    because the last ones of NumPy's linear algebra depend on the processor.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels.mixed import sensitivity
    >>> rng = np.random.default_rng(0)
    >>> w, x = (rng.normal(size=(n, 256)).astype(np.float32) for n in (64, 100))
    >>> errors = sensitivity(w, [{"format": "int4", "group_size": 32}, {"format": "int8"}], measure="sqnr", x=x)
    >>> (-10 * np.log10(errors)).round()
    array([20., 40.])
    """
    w = arguments.float_array(w, "w")
    candidates = checked_candidates(candidates, "candidates")
    check_measure(measure)
    check_activations(activations)
    error_of = gauge(w, measure, calibration, x, activations)
    return np.array([error_of(quantized(w, candidate, calibration)) for candidate in candidates], np.float64)


@_core.in_default_floating_mode
def kl_divergence(logits, other):
    """The Kullback-Leibler divergence from the softmax of logits to that of other ones.

    Parameters
    ----------
    logits, other : float array
        [..., N], of the same shape, finite; softmax is along the last axis.

    Returns
    -------
    float
        In nats, the mean over all rows; 0.0 without rows.

    Raises
    ------
    ValueError
        The shapes differ, or a value is not finite.

    Examples
    --------
    >>> from qkernels.mixed import kl_divergence
    >>> kl_divergence([[0, 0]], [[0, 0]]), round(kl_divergence([[0, 0]], [[0, 1]]), 4)
    (0.0, 0.1201)
    """
    pair = []
    for name, x in [("logits", logits), ("other", other)]:
        x = np.asarray(arguments.parameter(x, name), np.float64)
        if x.ndim == 0 or x.shape != np.shape(logits):
            raise ValueError(f"{name}: got shape {x.shape}, takes {np.shape(logits) or '[..., N]'}")
        if not np.isfinite(x).all():
            raise ValueError(f"{name}: contains NaN or infinity")
        pair.append(x)
    if not pair[0].size:
        return 0.0
    shifted = [x - x.max(axis=-1, keepdims=True) for x in pair]
    p, q = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in shifted)  # logarithms of the softmax
    return max(float((np.exp(p) * (p - q)).sum(axis=-1).mean()), 0.0)  # rounding may fall below


def gauge(w, measure, calibration, x, activations):
    """The function from a QuantizedWeight of w to its error, rounded to so many digits as processors agree upon."""
    error_of = _gauge(w, measure, calibration, x, activations)
    return lambda qw: float(f"{error_of(qw):.{DIGITS}g}")


def _gauge(w, measure, calibration, x, activations):
    if w.ndim != 2:
        raise ValueError(f"w: got {w.ndim} dimension(s), takes [N, K]")
    w = w.astype(np.float64)
    if measure == "hessian":
        hessian = checked_statistics(calibration, "calibration", w.shape[1]).hessian
        energy = output_error(w, hessian) or 1.0
        return lambda qw: max(output_error(w - qw.dequantize(), hessian), 0.0) / energy
    x = arguments.float_array(x, "x")
    if x.ndim == 0 or x.shape[-1] != w.shape[1] or not math.prod(x.shape[:-1]):
        raise ValueError(f"x: got shape {x.shape}, takes [..., {w.shape[1]}], at least one row")
    outputs = x.astype(np.float64) @ w.T
    if measure == "kl":
        return lambda qw: kl_divergence(outputs, linear(x, qw, activations=activations))
    energy = float(np.vdot(outputs, outputs)) or 1.0

    def noise_to_signal(qw):
        noise = outputs - linear(x, qw, activations=activations)
        return float(np.vdot(noise, noise)) / energy

    return noise_to_signal


def check_measure(measure):
    if measure not in MEASURES:
        raise ValueError(f"measure: got {measure!r}, takes one of {', '.join(MEASURES)}")


def check_activations(activations):
    if activations not in ("int8", "float32"):
        raise ValueError(f"activations: got {activations!r}, takes 'int8' or 'float32'")


def checked_error(error, name):
    if not isinstance(error, numbers.Real) or isinstance(error, bool):
        raise TypeError(f"{name}: got {error!r}, takes a function that returns one number")
    if not 0 <= error < np.inf:
        raise ValueError(f"{name}: gave an error of {error}, takes finite ones >= 0")
    return float(error)


def checked_importance(importance, layers):
    """A number for each layer, 1.0 by default."""
    importance = importance or {}
    for name, weight in importance.items():
        if name not in layers:
            raise ValueError(f"importance: got {name!r}, takes names of layers: {', '.join(layers)}")
        if not isinstance(weight, numbers.Real) or not 0 <= weight < np.inf:
            raise ValueError(f"importance: {name}: got {weight!r}, takes a finite number >= 0")
    return {name: float(importance.get(name, 1)) for name in layers}


def quantized(w, candidate, calibration):
    """The weight as a candidate has it."""
    return quantize_weight(w, **candidate, calibration=calibration if is_calibrated(candidate) else None)


def is_calibrated(candidate):
    return candidate.get("method") in CALIBRATED


def seconds(qw, rows, activations):
    """The median time of a product with so many rows."""
    x = np.ones((rows, qw.shape[1]), np.float32)
    times = []
    for _ in range(TIMED_CALLS + 1):
        start = time.perf_counter()
        linear(x, qw, activations=activations)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first one warms up


def checked_candidates(candidates, name):
    if isinstance(candidates, (str, dict)) or not len(candidates):
        raise ValueError(f"{name}: got {candidates!r}, takes a list of one or more dicts of options of quantize_weight")
    return [checked_candidate(candidate, f"{name}: {i}") for i, candidate in enumerate(candidates)]


def checked_candidate(candidate, name):
    """A copy, if `quantize_weight` takes these options: it is tried on a small weight."""
    if not isinstance(candidate, dict) or "format" not in candidate:
        raise ValueError(f"{name}: got {candidate!r}, takes a dict of options of quantize_weight with a format")
    for option, value in candidate.items():
        if option not in OPTIONS:
            raise ValueError(f"{name}: got the option {option!r}, takes {', '.join(OPTIONS)}")
        if value is not None and type(value) not in (str, int, float, bool):
            raise ValueError(f"{name}: {option}: got {value!r}, takes a string, a number, true, false or null")
        if isinstance(OPTIONS[option], bool) and type(value) is not bool:  # "false" would be true
            raise ValueError(f"{name}: {option}: got {value!r}, takes true or false")
    try:
        tried(candidate)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
    return dict(candidate)


def tried(candidate):
    """A small QuantizedWeight with these options."""
    return _try(json.dumps(candidate))


@functools.cache  # the layers of a plan have few different ones
def _try(options):
    statistics = InputStatistics(32).observe(np.eye(32, dtype=np.float32))
    return quantized(np.zeros((1, 32), np.float32), json.loads(options), statistics)


def label(candidate):
    """One line for people, different for different candidates."""
    options = (f"{option} {value}" for option, value in candidate.items() if option != "format")
    return ", ".join([candidate["format"], *sorted(options)])
