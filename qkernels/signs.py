"""Binary and ternary weights: signs, and signs or zeros, with a scale for each group."""

import numpy as np

from .groups import row_sums, stored


class Signs:
    """The level set of "binary": code 1 for +1 and 0 for -1; the scale is mean |w|, the least-squares optimum."""

    __slots__ = ("scale_dtype",)

    def __init__(self, scale_dtype):
        self.scale_dtype = scale_dtype

    def fit(self, groups, _):
        """The scale of each row."""
        return (stored(_means(groups), self.scale_dtype),)

    def codes(self, rows, _):
        """Of the nearest levels."""
        return (rows >= 0).astype(np.uint8)

    def integers(self, codes, _):
        """The levels of codes."""
        return 2 * codes.astype(np.int8) - np.int8(1)


class Ternary:
    """The level set of "ternary": codes are levels + 2."""

    __slots__ = ("scale_dtype",)

    def __init__(self, scale_dtype):
        self.scale_dtype = scale_dtype

    def fit(self, groups, ranges):
        """The scale of each row: mean |w|, or that of least squared error."""
        if ranges == "absmean":
            scales = _means(groups)
        else:
            scales = np.concatenate([_best_means(groups.rows[part]) for part in groups.pieces()] or [np.empty(0)])
        return (stored(scales, self.scale_dtype),)

    def codes(self, rows, scales):
        """Of the nearest levels."""
        with np.errstate(over="ignore"):
            levels = np.rint(rows / scales.astype(np.float32)[:, None])
        return (levels.clip(-1, 1) + 2).astype(np.uint8)

    def integers(self, codes, _):
        """The levels of codes."""
        return codes.astype(np.int8) - np.int8(2)


def _means(groups):
    """mean |w| of each row."""
    return row_sums(np.abs(groups.rows)) / np.maximum(groups.lengths(), 1)


def _best_means(rows):
    """The mean of the m greatest |w| of each row, for that m of which the squared error is the least.

    With the m greatest at scale s and the others at 0 the error is sum(w^2) - 2 s S + m s^2, S being the sum of their
    |w|: least for s = S / m, by S^2 / m. Rounding to the nearest level at that scale takes the same m.
    """
    if not rows.shape[1]:
        return np.zeros(len(rows))
    sums = np.cumsum(-np.sort(-np.abs(rows), axis=1), axis=1, dtype=np.float64)
    counts = np.arange(1, rows.shape[1] + 1)
    best = (sums * sums / counts).argmax(axis=1)
    return sums[np.arange(len(rows)), best] / counts[best]
