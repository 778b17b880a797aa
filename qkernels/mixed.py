"""Mixed precision: which format for which layer, so that a model's error is least within a size or a time.

`make_plan` measures candidates for each layer (`sensitivity`) and chooses among them (`allocate`). A `Plan` quantizes
a model, and is a file to read and edit. `plot_frontier` draws what errors can be had at what sizes (`frontier`).
"""

import itertools
import math

from . import _arguments as arguments
from . import _core
from .allocation import allocate, frontier, total
from .frontier_plot import plot_frontier
from .plans import Plan, check_layers, naming
from .progress import progress
from .sensitivity import (
    check_activations, check_measure, checked_candidates, checked_error, checked_importance, gauge, is_calibrated,
    kl_divergence, quantized, seconds, sensitivity)

__all__ = ["Plan", "allocate", "frontier", "kl_divergence", "make_plan", "plot_frontier", "sensitivity"]


@_core.in_default_floating_mode
def make_plan(weights, candidates, *, budget_bits=None, budget_bytes=None, budget_seconds=None, measure="hessian",
              calibration=None, inputs=None, importance=None, activations="int8", rows=None, table=None):
    """The quantizations of a model's layers with the least total error within a budget.

    Parameters
    ----------
    weights : mapping of str to float32 array
        [N, K] of each layer that is to be quantized.
    candidates : sequence of dict
        What each layer may become: options of `quantize_weight`, "format" among them, see `sensitivity`.
    budget_bits, budget_bytes, budget_seconds : float
        One of them: bits per weight on average or bytes in total, both of everything in a weight's state
        (`QuantizedWeight.nbytes`), or the time of one product of each layer.
    measure : {"hessian", "sqnr", "kl"} or callable, default "hessian"
        The error of a layer, see `sensitivity`. A function takes a dict of one layer's name to its QuantizedWeight and
        returns the error of the model with this layer so quantized, such as the `kl_divergence` of its outputs.
    calibration : mapping of str to InputStatistics, optional
        Of each layer; needed for "hessian" and for some methods.
    inputs : mapping of str to float32 array, optional
        [..., K], of each layer; needed for "sqnr" and "kl".
    importance : mapping of str to float, optional
        How much a layer's error counts, 1.0 by default.
    activations : {"int8", "float32"}
        Of `linear`, for errors and times.
    rows : int, optional
        Of x in the products that are timed; needed for budget_seconds. None: none are timed.
    table : dict, optional
        What is measured already, {} at first. It is filled as measurements come in, so that after an interruption, or
        for another budget or further candidates, a call with the same table goes on with what it lacks. Plain JSON, and
        what `plot_frontier` draws. It belongs to these weights, calibration and inputs.

    Returns
    -------
    Plan
        In ``measured`` its bytes, bits per weight, errors, and seconds if rows are given.

    Raises
    ------
    TypeError, ValueError
        A candidate is not one, the table was measured otherwise, or an argument is not as said above: found before
        anything is measured, but for the arrays of a layer, whose turn comes, and a budget that is less than what the
        cheapest candidates take, which the message says.

    Notes
    -----
    Optimal for the sum over the layers of ``importance * error``, see `allocate`. Bytes really are a sum, and so is the
    time of layers that run one after another, but for what a measurement of it varies. That errors add up is an
    approximation: what small, independent errors do to the loss of a model adds up to second order, each in proportion
    to the layer's squared output error [1]_ [2]_. The factor is the model's: "hessian" and "sqnr" take all layers as
    equally sensitive to the same ratio of noise to outputs; importance corrects this, and a function as measure asks
    the model itself. With importance ``trace(W H W^T)``, "hessian" sums absolute errors. SQNRs in dB do not add up, so
    that ratios are summed.

    A plan may be worse than one format for all layers where its measure is a poor guide to the model: compare the two
    by the outputs of the model.

    References
    ----------
    .. [1] Z. Dong et al., "HAWQ-V2: Hessian aware trace-weighted quantization of neural networks", 2019,
       arXiv:1911.03852.
    .. [2] Z. Yao et al., "HAWQ-V3: Dyadic neural network quantization", 2020, arXiv:2011.10680.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels.mixed import make_plan
    >>> rng = np.random.default_rng(0)
    >>> weights = {name: rng.normal(size=(64, 256)).astype(np.float32) for name in ("query", "key", "value")}
    >>> inputs = {name: rng.normal(size=(100, 256)).astype(np.float32) for name in weights}
    >>> candidates = [{"format": "int4", "group_size": 32}, {"format": "int8"}]
    >>> make_plan(weights, candidates, budget_bits=6, measure="sqnr", inputs=inputs)
    <Plan of 3 layers: 1 int8; 2 int4, group_size 32>
    """
    names = list(weights)
    candidates = checked_candidates(candidates, "candidates")
    budget_name, budget = _checked_budget(bits=budget_bits, bytes=budget_bytes, seconds=budget_seconds)
    if not callable(measure):
        check_measure(measure)
    check_activations(activations)
    if rows is not None:
        rows = arguments.scalar(rows, "rows", 1, 2**31)
    elif budget_seconds is not None:
        raise ValueError("rows: needed for budget_seconds")
    calibration, inputs = calibration or {}, inputs or {}
    if measure == "hessian" or any(map(is_calibrated, candidates)):
        check_layers(calibration, "calibration", names)
    if measure in ("sqnr", "kl"):
        check_layers(inputs, "inputs", names)
    importance = checked_importance(importance, names)
    table = {} if table is None else table
    settings = {"measure": "function" if callable(measure) else measure, "activations": activations, "rows": rows}
    if table.setdefault("settings", settings) != settings:
        raise ValueError(f"table: was measured with {table['settings']}, takes {settings}")
    _measure(table, weights, candidates, measure, calibration, inputs)

    entries = {name: [_find(table, name, candidate) for candidate in candidates] for name in names}
    sizes = {name: math.prod(table["layers"][name]["shape"]) for name in names}
    errors = [[importance[name] * entry["error"] for entry in entries[name]] for name in names]
    cost = "seconds" if budget_name == "budget_seconds" else "bytes"
    costs = [[entry[cost] for entry in entries[name]] for name in names]
    limit, unit = budget, 1  # of the costs; what one of the budget is in terms of them
    if budget_name == "budget_bits":
        unit = sum(sizes.values()) / 8
        limit = math.nextafter(budget, math.inf) * unit  # an average that was computed from bytes fits them
    least = total([min(own) for own in costs])
    if least > limit:
        raise ValueError(f"{budget_name}: got {budget}, takes at least {least / (unit or 1):.17g}, which the cheapest "
                         "candidates take")
    plan = Plan({})
    for name, i in zip(names, allocate(errors, costs, limit), strict=True):
        plan.layers[name], measured = entries[name][i]["candidate"], dict(entries[name][i])
        del measured["candidate"]
        plan.measured[name] = {"bits": 8 * measured["bytes"] / max(sizes[name], 1), **measured}
    return plan


def _measure(table, weights, candidates, measure, calibration, inputs):
    """Add to the table what it lacks."""
    layers, settings = table.setdefault("layers", {}), table["settings"]
    missing = [(name, candidate) for name in weights for candidate in candidates if not _find(table, name, candidate)]
    steps = progress(missing, len(missing), "measuring", "candidate")
    for name, of_layer in itertools.groupby(steps, lambda step: step[0]):
        with naming(name):
            w = arguments.float_array(weights[name], "w")
            layer = layers.setdefault(name, {"shape": list(w.shape), "measured": []})
            if layer["shape"] != list(w.shape):
                raise ValueError(f"w: got shape {w.shape}, has {tuple(layer['shape'])} in the table")
            error_of = None if callable(measure) else gauge(
                w, measure, calibration.get(name), inputs.get(name), settings["activations"])
            for _, candidate in of_layer:
                qw = quantized(w, candidate, calibration.get(name))
                error = checked_error(measure({name: qw}) if callable(measure) else error_of(qw), "measure")
                entry = {"candidate": candidate, "bytes": int(qw.nbytes), "error": error}
                if settings["rows"] is not None:
                    entry["seconds"] = seconds(qw, settings["rows"], settings["activations"])
                layer["measured"].append(entry)


def _find(table, name, candidate):
    """What the table has of a candidate for a layer, or None."""
    measured = table["layers"][name]["measured"] if name in table["layers"] else []
    return next((entry for entry in measured if entry["candidate"] == candidate), None)


def _checked_budget(**budgets):
    """The name and value of the one that is given."""
    given = [(f"budget_{name}", budget) for name, budget in budgets.items() if budget is not None]
    if len(given) != 1:
        raise ValueError(f"budget_bits: got {len(given)} budgets, takes one, budget_bits, _bytes or _seconds")
    name, budget = given[0]
    return name, arguments.positive(budget, name, 2.0**60)
