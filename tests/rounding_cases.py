"""Weights that are quantized in one way or another, without what makes a QuantizedWeight of them."""

import cases
import numpy as np

from qkernels.grids import Grid
from qkernels.groups import Groups
from qkernels.rounding import round_to_nearest


def grid(bits, symmetric=False, scale_dtype="float16"):
    return Grid(f"uint{bits}", symmetric, False, scale_dtype)


def quantized(w, levels, group_size, ranges="minmax", fit=None, rounded=round_to_nearest, hessian=None):
    """Codes [N, K], scales [N, G] and what else is fitted; `fit` takes the place of the level set's."""
    groups = Groups(w, group_size)
    fitted = fit(groups, levels) if fit else levels.fit(groups, ranges)
    codes = rounded(groups, levels, fitted, *([] if hessian is None else [hessian]))
    return codes, *map(groups.by_group, fitted)


def second_moments(k, rows=None):
    """Of correlated inputs with a mean, some columns much larger than others; of less rank than k with few rows."""
    x = cases.floats(k, (rows or 4 * k, k)) + np.float32(0.5)
    x[:, 1:] += x[:, :-1]
    x = x.astype(np.float64) * np.where(np.arange(k) % 7 == 3, 20, 1)
    return x.T @ x / len(x)
