"""Ranges that leave out some values, by percentile, squared error or entropy: one set of values after another."""

import numpy as np

from . import affine
from .weights import SHRINKS, sum_of_squares

BINS = 2048
SMOOTHED = 1e-4  # what Q has where it would have nothing and P has what lies beyond
EQUAL = 1e-9  # bits a value that do not tell one divergence from another


def choose_qparams(
    x, dtype="int8", *, axis=None, group_size=None, symmetric=True, full_range=False, method="minmax", percentile=None
):
    """Scale and zero point from the range of the values that share them."""
    options = {"symmetric": symmetric, "full_range": full_range}
    of_all = affine.choose_qparams(x, dtype, axis=axis, group_size=group_size, **options)
    if method == "minmax":
        return of_all
    percentile = 99.99 if percentile is None else percentile
    ends = np.zeros((of_all.scale.size, 2), np.float32)
    for i, values in enumerate(sharing(np.asarray(x, np.float32), axis, group_size)):
        if values.size and method == "percentile":
            ends[i] = by_percentile(values, percentile, symmetric)
        elif values.size and method == "mse":
            ends[i] = by_squared_error(values, ends_of(values), dtype, options)
        elif values.size:
            ends[i] = by_entropy(values, dtype)
    chosen = affine.choose_qparams(ends, dtype, axis=0, **options)
    shape = of_all.scale.shape
    return of_all._replace(scale=chosen.scale.reshape(shape)[()], zero_point=chosen.zero_point.reshape(shape)[()])


def sharing(x, axis, group_size):
    """The values that share a scale, in the order of the scales."""
    if group_size is not None:
        rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
        return [row[at : at + group_size] for row in rows for at in range(0, len(row), group_size)]
    if axis is not None:
        return [part.ravel() for part in np.moveaxis(x, axis, 0)]
    return [x.ravel()]


def ends_of(values):
    return min(values.min(), np.float32(0)), max(values.max(), np.float32(0))


def by_percentile(values, percentile, symmetric):
    if symmetric:
        largest = np.percentile(np.abs(values).astype(np.float64), percentile).astype(np.float32)
        low, high = ends_of(values)
        return max(low, -largest), min(high, largest)
    outside = (100 - percentile) / 2
    low, high = np.percentile(values.astype(np.float64), [outside, 100 - outside]).astype(np.float32)
    return min(low, np.float32(0)), max(high, np.float32(0))


def by_squared_error(values, ends, dtype, options):
    """The best of some parts of the range, the largest of equals."""
    tried = [np.float32(ends) * shrink for shrink in SHRINKS]
    chosen = [affine.choose_qparams(ends, dtype, **options) for ends in tried]
    left = [affine.fake_quantize(values, c.scale, c.zero_point, dtype=dtype) - values for c in chosen]
    return tried[np.argmin([sum_of_squares(error[None])[0] for error in left])]


def by_entropy(values, dtype):
    low, high = ends_of(values)
    largest = np.float64(max(-low, high))
    if largest == 0:
        return low, high
    bins = np.floor(np.abs(values).astype(np.float64) * BINS / largest).astype(int)
    counts = np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
    qmin, qmax = affine.RANGES[affine.dtype_name(dtype)]
    kept = entropy_bins(counts, (qmax - qmin + 1) // 2)
    cut = np.float32((kept + 0.5) * (largest / BINS))
    return max(low, -cut), min(high, cut)


def entropy_bins(counts, levels):
    """The number of bins to keep: of 2048, say, with 128 levels for what is kept. The first bin, where zeros are,
    counts like the second."""
    counts = np.append(counts[1], counts[1:])
    candidates = range(min(levels, len(counts)), len(counts) + 1)
    found = np.array([divergence(counts, i, levels) for i in candidates])
    return candidates[int(np.argmax(found <= found.min() + EQUAL))]


def divergence(counts, i, levels):
    """KL(P, Q) in bits. P: the first i bins, with what lies beyond them in the last; Q: the same bins without that,
    joined to levels, and these spread over their bins that are not empty."""
    kept = counts[:i]
    if not kept.any():
        return np.inf
    p = kept.astype(np.float64)
    p[-1] += counts[i:].sum()
    level = np.arange(i) * levels // i
    mass, filled = np.bincount(level, kept, levels), np.bincount(level, kept > 0, levels)
    q = np.where(kept > 0, mass[level] / np.maximum(filled[level], 1), 0)
    if p[-1] > 0 and q[-1] == 0:
        q[-1] = SMOOTHED
    p, q = p[p > 0] / p.sum(), q[p > 0] / kept.sum()
    return np.sum(p * np.log2(p / q))
