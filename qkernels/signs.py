"""Binary and ternary weights: signs, and signs or zeros, with a scale for each group."""

import numpy as np

from .groups import Groups, row_sums, stored


def quantize_binary(w, group_size, scale_dtype):
    """Codes [N, K], 1 for +1 and 0 for -1, and scales [N, G]: mean |w|, which is the least-squares optimum."""
    groups = Groups(w, group_size)
    return groups.codes(groups.rows >= 0).astype(np.uint8), groups.by_group(stored(_means(groups), scale_dtype))


def quantize_ternary(w, group_size, method, scale_dtype):
    """Codes [N, K], level + 2, and scales [N, G]."""
    groups = Groups(w, group_size)
    if method == "absmean":
        scales = _means(groups)
    else:
        scales = np.concatenate([_best_means(groups.rows[part]) for part in groups.pieces()] or [np.empty(0)])
    scales = stored(scales, scale_dtype)
    with np.errstate(over="ignore"):
        levels = np.rint(groups.rows / scales.astype(np.float32)[:, None])
    return groups.codes((levels.clip(-1, 1) + 2).astype(np.uint8)), groups.by_group(scales)


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
