"""Ranges of values that share a scale: by percentile, squared error or entropy, of the values or of their histograms.

A range is a pair of arrays float32 [rows], low and high, which holds 0. Decisions are made in float64 by elementary
operations in a fixed order, so that they are the same on every processor.
"""

import functools

import numpy as np

from . import _core
from .affine import Layout, fake_quantize
from .groups import SEARCH_SIZE, SHRINKS, row_sums, squared_errors
from .progress import progress

ENTROPY_BINS = 2048
EQUAL = 1e-9  # bits a value: divergences that differ by less are rounding apart at most
LOG2_OF_SMOOTHED = -13.287712379549449  # of 1e-4 of a value


class Histograms:
    """Counts of the values of rows.

    Attributes
    ----------
    counts : int64 ndarray
        [rows, 2, bins]: of values below 0, by their distance from it, and of the others.
    widths : float64 ndarray
        [rows], of a bin.
    low, high : float32 ndarray
        [rows], the least and the greatest value.
    """

    __slots__ = ("counts", "widths", "low", "high")

    def __init__(self, counts, widths, low, high):
        self.counts, self.widths, self.low, self.high = counts, widths, low, high

    def limits(self):
        return np.minimum(self.low, np.float32(0)), np.maximum(self.high, np.float32(0))

    def centres(self):
        """float32 [rows, 2 * bins]: a value for each of a bin, in the order of the counts."""
        steps = np.arange(self.counts.shape[2]) + 0.5
        centres = np.multiply.outer(self.widths, np.concatenate([-steps, steps]))
        return np.clip(centres, self.low[:, None], self.high[:, None]).astype(np.float32)

    def percentiles(self, percentile, symmetric):
        """The range by percentiles, whose ends lie less than a bin from where those of the values do."""
        negative, others = self.counts[:, 0], self.counts[:, 1]
        if symmetric:
            largest = np.maximum(np.abs(self.low), np.abs(self.high))
            return _cut(*self.limits(), np.minimum(_percentile(negative + others, percentile) * self.widths, largest))
        bins, percentile = self.counts.shape[2], 100 - (100 - percentile) / 2
        ends = []
        for below, above, largest in [(others, negative, -self.low), (negative, others, self.high)]:
            steps = _percentile(np.concatenate([below[:, ::-1], above], axis=1), percentile) - bins
            ends.append(np.minimum(steps * self.widths, largest).astype(np.float32).clip(0))
        return np.float32(0) - ends[0], ends[1]


def of_rows(rows, scheme, method, percentile):
    """The ranges of rows of finite values, at least one in a row, by a method that is not "minmax"."""
    low, high = limits(rows)
    if method == "percentile":
        return _percentiles_of_rows(rows, percentile, scheme.symmetric)
    if method == "mse":
        return least_squares(rows, low, high, scheme)
    largest = np.maximum(-low, high).astype(np.float64)
    pairs = progress(zip(rows, largest), len(rows), "entropy", "range")
    return _cut(low, high, [_entropy_of_row(*pair, scheme) for pair in pairs])


def of_histograms(histograms, scheme, method, percentile):
    """The same of what histograms have counted; here "minmax", too, which is exact."""
    low, high = histograms.limits()
    if method == "minmax":
        return low, high
    if method == "percentile":
        return histograms.percentiles(percentile, scheme.symmetric)
    if method == "mse":
        weights = histograms.counts.reshape(len(low), -1).astype(np.float64)
        return least_squares(histograms.centres(), low, high, scheme, weights)
    magnitudes = progress(histograms.counts.sum(axis=1), len(low), "entropy", "range")
    bins = [entropy_bins(counts, _levels(scheme)) for counts in magnitudes]
    return _cut(low, high, (np.array(bins) + 0.5) * histograms.widths)


def limits(rows):
    """The least and greatest of each row and 0."""
    low, high = np.empty((2, len(rows)), np.float32)
    _core.ranges(_core.contiguous(rows), Layout(rows.shape, 0, None).struct, low, high)
    return low, high


def least_squares(rows, low, high, scheme, weights=None):
    """The part of each range that gives the row the least (weighted) squared error, of equal ones the largest."""
    shrinks = np.ones(len(rows), np.float32)
    step = max(SEARCH_SIZE // max(rows.shape[1], 1), 1)
    starts = range(0, len(rows), step)
    for start in progress(starts, len(rows), "mse", "range", lambda start: min(step, len(rows) - start)):
        part = slice(start, start + step)
        weights_of_part = None if weights is None else weights[part]
        shrinks[part] = _best_shrinks(rows[part], low[part], high[part], scheme, weights_of_part)
    return low * shrinks, high * shrinks


def _best_shrinks(rows, low, high, scheme, weights):
    best, least = SHRINKS[0], np.full(len(rows), np.inf)
    for shrink in SHRINKS:
        parameters = scheme.spread(low * shrink, high * shrink)
        error = squared_errors(fake_quantize(rows, *parameters, dtype=scheme.qtype, axis=0) - rows, weights)
        best = np.where(error < least, shrink, best)
        least = np.fmin(error, least)
    return best


def entropy_bins(counts, levels):
    """How many of the first bins to keep, so that `levels` levels for them tell most of the histogram [bins]; of
    equally good numbers the least.

    The first bin counts as if it had what the second has: the zeros in it, of which there may be any number (behind a
    ReLU, say), become 0 whatever is kept. Of i bins, with c_b values in bin b, r in these bins and n in all, level l
    has m_l values in f_l bins that are not empty. P has p_b = c_b values, p_(i-1) also those beyond. Q has
    q_b = m_l / f_l where c_b is not 0, and 1e-4 of a value in the last bin if it is empty but for those beyond. With
    P / n and Q / r,

        n KL(P, Q) = sum of p_b log p_b - sum of p_b log q_b + n (log r - log n),

    where sums over bins are differences of running sums, and the sum of c_b log q_b is that of m_l log(m_l / f_l).
    Where r is 0, that is 13 bits a value; keeping one more than the empty bins costs 0, so it does not matter.
    """
    if len(counts) <= levels:
        return len(counts)
    counts = np.append(counts[1], counts[1:])
    kept, cuts = _candidates(len(counts), levels)
    values, filled = (np.append(0, np.cumsum(x)) for x in (counts, counts > 0))
    inside, beyond, last = values[kept], values[-1] - values[kept], counts[kept - 1]
    of_p = _running_entropy(counts)[kept - 1] + (last + beyond) * _log2(np.maximum(last + beyond, 1))
    masses = np.diff(values[cuts], axis=0)
    logs = _log2(np.maximum(masses, 1) / np.maximum(np.diff(filled[cuts], axis=0), 1))
    of_q = row_sums((masses * logs).T) + beyond * np.where(last > 0, logs[-1], LOG2_OF_SMOOTHED)
    divergence = of_p - of_q + values[-1] * (_log2(np.maximum(inside, 1)) - _log2(max(values[-1], 1)))
    return kept[np.argmax(divergence <= divergence.min() + EQUAL * values[-1])]


@functools.lru_cache(8)
def _candidates(bins, levels):
    """How many bins may be kept, [candidates], and the first bin of each level and the end [levels + 1, candidates]."""
    kept = np.arange(levels, bins + 1)
    return kept, -(-np.arange(levels + 1)[:, None] * kept // levels)


def _running_entropy(counts):
    """The sum of c log c of the bins before each."""
    return np.append(0, np.cumsum(counts * _log2(np.maximum(counts, 1))))


def _log2(x):
    """log2 of numbers >= 1. Libraries differ in the last bit from processor to processor; this is 2 atanh(s) / log(2),
    s = (m - 1) / (m + 1), for m from sqrt(1/2) to sqrt(2), by its series up to s**21."""
    m, exponent = np.frexp(x)
    is_low = m < 0.5**0.5
    m, exponent = np.where(is_low, m + m, m), exponent - is_low
    s = (m - 1) / (m + 1)
    square, series = s * s, 1 / 21
    for odd in range(19, 0, -2):
        series = series * square + 1 / odd
    return exponent + series * s * 2.8853900817779268


def _levels(scheme):
    """Of magnitudes: half of those of the quantized type."""
    return 2 ** (int(scheme.qtype.lstrip("uint")) - 1)


def _entropy_of_row(row, largest, scheme):
    if largest == 0:
        return 0.0
    places = (np.abs(row).astype(np.float64) * ENTROPY_BINS / largest).astype(np.intp)
    counts = np.bincount(np.minimum(places, ENTROPY_BINS - 1), minlength=ENTROPY_BINS)
    return (entropy_bins(counts, _levels(scheme)) + 0.5) * (largest / ENTROPY_BINS)


def _cut(low, high, largest):
    """Ranges cut to `largest` on both sides."""
    largest = np.asarray(largest).astype(np.float32)
    return np.maximum(low, -largest), np.minimum(high, largest)


def _percentiles_of_rows(rows, percentile, symmetric):
    if symmetric:
        return _cut(*limits(rows), np.percentile(np.abs(rows).astype(np.float64), percentile, axis=1))
    outside = (100 - percentile) / 2
    low, high = np.percentile(rows.astype(np.float64), [outside, 100 - outside], axis=1).astype(np.float32)
    return np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))


def _percentile(counts, percentile):
    """[rows]: the percentile of what histograms [rows, bins] count, in bins from the first one's start.

    As `numpy.percentile` between the values of two ranks; those of a bin are taken to end where it does, at equal
    distances.
    """
    ends = np.cumsum(counts, axis=1)
    most = ends[:, -1] - 1
    rank = percentile / 100 * most
    below = np.floor(rank).astype(np.int64)
    first, second = (_place(counts, ends, np.minimum(k, most)) for k in (below, below + 1))
    return first + (rank - below) * (second - first)


def _place(counts, ends, rank):
    """Where the value of a rank, counted from 0, lies."""
    bins = (ends <= rank[:, None]).sum(axis=1)
    of_bin = np.take_along_axis(counts, bins[:, None], axis=1)[:, 0]
    return bins + 1 - (np.take_along_axis(ends, bins[:, None], axis=1)[:, 0] - 1 - rank) / of_bin
