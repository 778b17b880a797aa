"""Plans: which quantization each layer of a model gets, as a file that people can read and edit."""

import json
from contextlib import contextmanager
from pathlib import Path

from . import _core, _files
from .progress import progress
from .sensitivity import OPTIONS, checked_candidate, is_calibrated, label, quantized
from .weight_stack import QuantizedWeightStack
from .weights import QuantizedWeight

VERSION = 1


class Plan:
    """A quantization for each layer.

    Parameters
    ----------
    layers : dict of str to dict
        For each layer options of `quantize_weight`, "format" among them.
    measured : dict of str to dict, optional
        For layers what was measured, for people to read: "bytes", "bits" (per weight), "error" and "seconds".

    Attributes
    ----------
    layers, measured : dict
        As given. Nothing depends on measured.

    Raises
    ------
    ValueError
        The options of a layer are none that `quantize_weight` takes; the message names the layer.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels.mixed import Plan
    >>> plan = Plan({"up": {"format": "int4", "group_size": 32}, "down": {"format": "int8"}})
    >>> weights = {name: np.eye(64, dtype=np.float32) for name in plan.layers}
    >>> [(name, qw.format) for name, qw in plan.quantize(weights).items()]
    [('up', 'int4'), ('down', 'int8')]
    """

    __slots__ = ("layers", "measured")

    def __init__(self, layers, measured=None):
        if not isinstance(layers, dict):
            raise ValueError(f"layers: got {type(layers).__name__}, takes a dict of layers")
        self.layers = {name: checked_candidate(options, f"layers: {name}") for name, options in layers.items()}
        self.measured = dict(measured or {})

    @_core.in_default_floating_mode
    def quantize(self, weights, *, calibration=None, done=None):
        """Quantize the layers of the plan.

        Parameters
        ----------
        weights : mapping of str to float32 array
            [N, K] for each layer of the plan; others are left alone. Each is asked for once, when its turn comes.
        calibration : mapping of str to InputStatistics, optional
            For the layers whose method needs it.
        done : dict of str to QuantizedWeight, optional
            What is quantized already, which is left as it is. New weights are added as they become ready, so that after
            an interruption a call with the same dict goes on where the first one stopped.

        Returns
        -------
        dict of str to QuantizedWeight
            `done`, or a new one.

        Raises
        ------
        TypeError, ValueError
            Weights or calibration lack a layer, one in `done` has another format, group size, symmetry or rotation than
            the plan says (found before any is quantized), or `quantize_weight` refuses a weight; the message names the
            layer.
        """
        calibration = {} if calibration is None else calibration
        done = {} if done is None else done
        check_layers(weights, "weights", self.layers)
        for name, options in self.layers.items():
            if name in done:
                _check_done(done[name], options, f"done: {name}")
        missing = [name for name in self.layers if name not in done]
        check_layers(calibration, "calibration", [name for name in missing if is_calibrated(self.layers[name])])
        for name in progress(missing, len(missing), "quantizing", "layer"):
            with naming(name):
                done[name] = quantized(weights[name], self.layers[name], calibration.get(name))
        return done

    def save(self, path):
        """Write a JSON file: a version, the options of each layer, and what was measured.

        Parameters
        ----------
        path : str or path-like
            Either written completely or left as it was.

        Raises
        ------
        qkernels._files.FileError
            It cannot be written.
        """
        measured = {name: {"of": label(self.layers[name]), **row} for name, row in self.measured.items()}
        _files.write_json(path, {"version": VERSION, "layers": self.layers, "measured": measured})

    @classmethod
    @_core.in_default_floating_mode
    def load(cls, path):
        """Read a file of `save`, which may have been edited.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        Plan
            What was measured of a layer that has other options since then is left out.

        Raises
        ------
        OSError
            It cannot be read.
        ValueError
            It is not a plan, is one of a later version, or has a layer that cannot be quantized so; the message names
            the file and the layer.
        """
        try:
            return cls._from_json(json.loads(Path(path).read_text("utf-8"), object_pairs_hook=_without_duplicates))
        except (ValueError, RecursionError) as error:  # damaged JSON and UTF-8 are ValueErrors, too
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def _from_json(cls, content):
        if not isinstance(content, dict) or "version" not in content or "layers" not in content:
            raise ValueError("is not a plan, which has a version and layers")
        if content["version"] != VERSION:
            raise ValueError(f"version: got {content['version']!r}, takes {VERSION}")
        plan = cls(content["layers"])
        measured = content.get("measured", {})
        if not isinstance(measured, dict) or not all(isinstance(row, dict) for row in measured.values()):
            raise ValueError("measured: takes an object for each layer")
        for name, row in measured.items():
            if name in plan.layers and row.get("of") == label(plan.layers[name]):
                plan.measured[name] = {key: value for key, value in row.items() if key != "of"}
        return plan

    def __eq__(self, other):
        return isinstance(other, Plan) and (self.layers, self.measured) == (other.layers, other.measured)

    def __repr__(self):
        kinds = {}
        for options in self.layers.values():
            kinds[label(options)] = kinds.get(label(options), 0) + 1
        return f"<Plan of {len(self.layers)} layers: " + "; ".join(f"{n} {kind}" for kind, n in kinds.items()) + ">"


def check_layers(given, name, layers):
    """Refuse a mapping that lacks one of these layers."""
    lacking = [layer for layer in layers if layer not in given]
    if lacking:
        raise ValueError(f"{name}: lacks {', '.join(lacking)}")


def _check_done(weight, options, name):
    """Refuse a weight that can be seen not to come from these options of `quantize_weight`."""
    if not isinstance(weight, (QuantizedWeight, QuantizedWeightStack)):
        raise TypeError(f"{name}: got {type(weight).__name__}, takes a QuantizedWeight")
    for option, found in [("format", weight.format), ("group_size", weight.group_size),
                          ("symmetric", weight.symmetric), ("rotate", weight.seed is not None)]:
        wanted = options.get(option, OPTIONS[option])
        if found != wanted:
            raise ValueError(f"{name}: {option}: got {found!r}, takes {wanted!r} as the plan says")


@contextmanager
def naming(layer):
    """Errors name the layer whose weight is at work."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"weights: {layer}: {error}") from error


def _without_duplicates(pairs):
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError(f"an entry is there twice: {', '.join(name for name, _ in pairs)}")
    return entries
