"""The methods of quantize_weight, once its arguments are checked: level set, scales, codes."""

from typing import NamedTuple

import numpy as np

from . import awq, formats, hqq, trellis
from .adaround import round_adaptively
from .grids import Grid
from .groups import Groups
from .hadamard import hadamard, rotated_moments
from .rounding import dequantized, round_to_nearest, round_with_feedback
from .signs import Signs, Ternary
from .tables import Table, train
from .weights import QuantizedWeight

INTEGERS = formats.of_family("integer")
OF_VALUES = formats.of_family("integer", "table", "binary", "ternary")  # each value has a code of its own
TAKERS = {"rtn": [*formats.FORMATS], "gptq": OF_VALUES, "awq": OF_VALUES, "hqq": INTEGERS, "adaround": INTEGERS,
          "ldlq": [*formats.FORMATS]}
CALIBRATED = ("gptq", "awq", "adaround", "ldlq")


class Options(NamedTuple):
    """What `quantize_weight` was asked for, but for the method; `record` is that of the format."""

    record: formats.WeightFormat
    group_size: int | None
    symmetric: bool
    ranges: str
    scale_dtype: str
    full_range: bool
    codebook: str | None
    importance: np.ndarray | None
    window: int | None

    def level_set(self, w):
        """That of the format; a table may be trained for w."""
        family, levels = self.record.family, self.record.levels
        if family == "integer":
            return Grid(self.record.qtype, self.symmetric, self.full_range, self.scale_dtype)
        if family != "table":
            return {"binary": Signs, "ternary": Ternary}[family](self.scale_dtype)
        if levels is None:
            levels = train(w, formats.find("nf4").levels, self.group_size, self.ranges, self.scale_dtype,
                           self.codebook == "row", self.importance)
        return Table(levels, self.scale_dtype)

    def nearest(self, w):
        """float32 [N, K]: w rounded to nearest."""
        groups, levels = Groups(w, self.group_size, self.importance), self.level_set(w)
        fitted = levels.fit(groups, self.ranges)
        return dequantized(groups, levels, fitted, round_to_nearest(groups, levels, fitted))


def quantized(w, options, method, statistics, seed):
    """The QuantizedWeight of w; statistics of its inputs where the method asks for them, seed None for no rotation."""
    record, rest = options.record, {"seed": seed}
    hessian = None if statistics is None else statistics.hessian
    if seed is not None:
        w, hessian = _rotated(w, hessian, seed)
    if record.family == "trellis":
        codes, scales = trellis.encode(w, record.bits, options.window or trellis.FAST_WINDOW, options.group_size,
                                       options.scale_dtype, hessian)
        return QuantizedWeight(record.name, codes, scales, None, options.group_size, k=w.shape[1],
                               window=options.window, **rest)
    if method == "awq":
        rest["input_scales"] = awq.search(w, statistics.mean_abs, hessian, options.nearest)
        w = w / rest["input_scales"]
    groups, levels = Groups(w, options.group_size, options.importance), options.level_set(w)
    fitted = hqq.fit(groups, levels) if method == "hqq" else levels.fit(groups, options.ranges)
    if method in ("gptq", "ldlq"):
        codes = round_with_feedback(groups, levels, fitted, hessian)
    elif method == "adaround":
        codes = round_adaptively(groups, levels, fitted, hessian)
    else:
        codes = round_to_nearest(groups, levels, fitted)
    scales, *others = map(groups.by_group, fitted)
    if record.name == "codebook4":
        rest["levels"] = levels.levels
    zero_points = None if options.symmetric else others[0]
    return QuantizedWeight(record.name, codes, scales, zero_points, options.group_size, **rest)


def _rotated(w, hessian, seed):
    """The rotated weight, and the Hessian of inputs that are rotated likewise."""
    w = hadamard(w, seed=seed)
    if not np.isfinite(w).all():
        raise ValueError("w: its rows are too large to be rotated in float32")
    return w, None if hessian is None else rotated_moments(hessian, seed)
