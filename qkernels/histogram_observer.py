"""An observer that counts values by size: its bins double in width as larger ones come."""

import numpy as np

from . import _arguments as arguments
from . import ranges
from .observers import Observer
from .qparams import METHODS

PIECE = 2**20  # values that are counted at a time, and counts that are added at a time
LEAST = 2.0**-149  # the least positive float32


class HistogramObserver(Observer):
    """Counts of values by size, from which ranges follow by any method.

    Parameters
    ----------
    bins : int, default 2048
        For the values below 0 and as many for the others; 2 to 2**20. A scale takes 16 bytes for each.
    axis : int, optional
        The axis that has its own scales; None for one scale per tensor.

    Notes
    -----
    The bins of a scale lie side by side from 0 on and all have the least width that is a power of two with which they
    hold the largest ``|x|``, so that at least half of the bins up to it are used. When a larger value comes, pairs of
    bins become one. The counts therefore depend on which values were seen and on nothing else: observers of parts that
    are merged, in any order, equal one of the whole, bit for bit.

    "minmax" is exact. A "percentile" range ends less than a bin from where that of the values does. "mse" takes all
    values of a bin to be its middle, "entropy" takes these bins for those that `qkernels.choose_qparams` would make.
    The results are bit-identical on every processor.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels.calibration import HistogramObserver
    >>> x = np.append(np.linspace(-1, 1, 10_000), 2).astype(np.float32)
    >>> halves = [HistogramObserver().observe(half) for half in np.split(x[:-1], 2)]
    >>> seen = halves[0].merge(halves[1]).observe(x[-1:])
    >>> for method in ("minmax", "percentile", "mse"):
    ...     print(f"{method}: {7 * seen.qparams('int4', symmetric=True, method=method).scale:.2f}")
    minmax: 2.00
    percentile: 1.00
    mse: 0.95
    """

    __slots__ = ("bins", "_counts")
    _METHODS = METHODS
    _PARAMETERS = ("bins", "axis")
    _ARRAYS = Observer._ARRAYS | {"counts": np.int64}

    def __init__(self, bins=2048, axis=None):
        super().__init__(axis)
        self.bins = arguments.scalar(bins, "bins", 2, 2**20)
        self._counts = np.zeros((0, 2, self.bins), np.int64)

    def _fill(self, blocks, low, high):
        self._low, self._high = low, high
        self._counts = np.zeros((len(low), 2, self.bins), np.int64)
        widths = self._widths()
        for part, values in _pieces(blocks, self.bins):
            self._counts[part] += _counted(values, widths[part], self.bins)

    def _join(self, other):
        low, high = np.minimum(self._low, other._low), np.maximum(self._high, other._high)
        exponents = _exponents(low, high, self.bins)
        self._counts = sum(_widened(part._counts, exponents - _exponents(part._low, part._high, self.bins))
                           for part in (self, other))
        self._low, self._high = low, high

    def _widths(self):
        return np.ldexp(1.0, _exponents(self._low, self._high, self.bins))

    def _ranges(self, scheme, method, percentile):
        histograms = ranges.Histograms(self._counts, self._widths(), self._low, self._high)
        return ranges.of_histograms(histograms, scheme, method, percentile)

    def _check_arrays(self):
        super()._check_arrays()
        scales = len(self._low)
        if self._counts.shape != (scales, 2, self.bins):
            raise ValueError(f"counts: got shape {self._counts.shape}, takes {(scales, 2, self.bins)}")
        if (self._counts < 0).any() or (self._counts.sum(axis=(1, 2)) != self.count // scales).any():
            raise ValueError(f"counts: takes {self.count // scales} values a scale")


def _exponents(low, high, bins):
    """Of the widths of bins: the least with which low and high are within the bins."""
    largest = np.maximum(-low, high).astype(np.float64)
    return np.frexp(np.maximum(largest, LEAST) / bins)[1]


def _widened(counts, doublings):
    """Counts [scales, 2, bins] in bins whose widths have doubled so many times, [scales]."""
    bins = counts.shape[2]
    doublings = np.minimum(doublings, bins.bit_length())  # by then, all values are in the first bin
    if doublings.any():
        counts = counts.copy()
    for step in range(doublings.max()):
        rows = doublings > step
        pairs = counts[rows]
        counts[rows] = 0
        pairs[..., : bins // 2 * 2 : 2] += pairs[..., 1::2]
        counts[rows, :, : -(-bins // 2)] = pairs[..., ::2]
    return counts


def _pieces(blocks, bins):
    """Slices of the scales and values of them, [outer, scales, inner]."""
    scales = max(PIECE // (2 * bins), 1)
    inner = min(blocks.shape[2], PIECE // min(scales, blocks.shape[1]))
    outer = max(PIECE // (min(scales, blocks.shape[1]) * inner), 1)
    for first in range(0, blocks.shape[1], scales):
        part = slice(first, first + scales)
        for i in range(0, blocks.shape[0], outer):
            for k in range(0, blocks.shape[2], inner):
                yield part, blocks[i : i + outer, part, k : k + inner]


def _counted(values, widths, bins):
    """Counts [scales, 2, bins] of values [outer, scales, inner]."""
    places = (np.abs(values) * (1 / widths)[:, None]).astype(np.intp)  # products with powers of two are exact
    places += np.where(values < 0, 0, bins)
    places += 2 * bins * np.arange(len(widths))[:, None]
    return np.bincount(places.ravel(), minlength=2 * bins * len(widths)).reshape(-1, 2, bins)
