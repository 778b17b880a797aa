"""The statistics of layers' inputs in a calibration file, and what is done with layers of which it has none."""

import re
from typing import NamedTuple

from . import files
from .methods import CALIBRATED, TAKERS
from .sensitivity import checked_candidate

WEIGHT = re.compile(r"\.weight(?=(\.[0-9]+)?$)")
FALLBACKS = tuple(method for method in TAKERS if method not in CALIBRATED)


class LayerInputs(NamedTuple):
    """What a calibration file has of some layers.

    Attributes
    ----------
    places : dict of str to EntryPlace
        Of the statistics of each layer.
    without : list of str
        The layers that have none there, or of no rows: which no input has reached.
    """

    places: dict
    without: list


def find_inputs(path, layers, may_lack):
    """Look up the statistics of layers, of all before any is quantized.

    Parameters
    ----------
    path : str or path-like
        A file of `save`.
    layers : dict of str to int
        The values in a row of the inputs of each layer; of a stack those of each weight, under a name such as
        "mlp.experts.down_proj.3". In the file ".weight" may be left out of it.
    may_lack : bool
        Whether there may be layers without.

    Returns
    -------
    LayerInputs

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It lacks layers, or has something else under their names; the message names all of them.
    """
    found = files.load(path, verify=False)
    places, lacking, unseen, unfit = {}, [], [], []
    for name, k in layers.items():
        own = name if name in found else WEIGHT.sub("", name)
        description = found.descriptions.get(own)
        if description is None:
            lacking.append(name)
        elif description["kind"] != "statistics" or description["k"] != k:
            unfit.append(f"{name}: takes statistics of some rows of {k} values")
        elif not description["rows"]:
            unseen.append(name)
        else:
            places[name] = found.place(own)
    if unfit:
        raise ValueError(f"calibration: {path}: {'; '.join(unfit)}")
    if (lacking or unseen) and not may_lack:
        whys = [f"{why} {', '.join(names)}" for why, names in [("lacks", lacking), ("has seen no rows of", unseen)]
                if names]
        raise ValueError(f"calibration: {path} {', and '.join(whys)}; --fallback, fallback= quantize these without")
    return LayerInputs(places, [name for name in layers if name not in places])


def checked_fallback(method):
    if method is not None and method not in FALLBACKS:
        raise ValueError(f"fallback: got {method!r}, takes one of {', '.join(FALLBACKS)}, which need no calibration")
    return method


def fallen_back(options, method, name):
    """Options of `quantize_weight` with another method; name: of the layer, for errors."""
    others = {option: value for option, value in options.items() if option != "method"}
    return checked_candidate(others | ({} if method == "rtn" else {"method": method}), f"fallback: {name}")
