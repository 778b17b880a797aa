"""Scales and zero points of groups of values: from their range, or the best of several parts of it."""

import numpy as np

from .affine import choose_qparams, fake_quantize, quantize

SHRINKS = np.float32([1 - i / 40 for i in range(33)])  # the parts of a range that `Grid.search` tries
SEARCH_SIZE = 2**18  # values for which it tries them at a time, to stay in cache


class Grid:
    """How scales and zero points follow from the ranges of groups."""

    __slots__ = ("qtype", "symmetric", "full_range", "scale_dtype")

    def __init__(self, qtype, symmetric, full_range, scale_dtype):
        self.qtype, self.symmetric, self.full_range, self.scale_dtype = qtype, symmetric, full_range, scale_dtype

    def spread(self, low, high):
        """Scales as they are stored, and zero points, whose levels lie from low to high."""
        ends = np.stack([low, high], axis=1)
        chosen = choose_qparams(ends, self.qtype, axis=0, symmetric=self.symmetric, full_range=self.full_range)
        scales = stored(chosen.scale, self.scale_dtype)
        if self.symmetric:
            return scales, chosen.zero_point
        return scales, quantize(-low, scales, dtype=self.qtype, axis=0)

    def cover(self, groups):
        """The whole range of each row."""
        return self.spread(*_range(groups))

    def search(self, groups):
        """The part of each row's range with the least squared error."""
        scales, zero_points = np.empty(len(groups), self.scale_dtype), np.empty(len(groups), np.uint8)
        step = max(SEARCH_SIZE // max(groups.shape[1], 1), 1)
        for start in range(0, len(groups), step):
            part = slice(start, start + step)
            scales[part], zero_points[part] = self._search(groups[part])
        return scales, zero_points

    def _search(self, groups):
        low, high = _range(groups)
        best, least = None, np.full(len(groups), np.inf)
        for shrink in SHRINKS:
            tried = self.spread(low * shrink, high * shrink)
            error = _sum_of_squares(fake_quantize(groups, *tried, dtype=self.qtype, axis=0) - groups)
            better = error < least
            best = tried if best is None else [np.where(better, new, old) for new, old in zip(tried, best)]
            least = np.where(better, error, least)
        return best


def _range(groups):
    """The least and greatest of each row and 0."""
    return groups.min(axis=1, initial=np.float32(0)), groups.max(axis=1, initial=np.float32(0))


def _sum_of_squares(x):
    """Of each row."""
    return row_sums(np.square(x, dtype=np.float64))


def row_sums(x):
    """Of float64 numbers, in an order that is the same on every processor: halves are added until one value is left."""
    sums = np.array(x.T, order="C")  # rows are added faster than short pieces of them
    size = len(sums)
    while size > 1:
        half = -(-size // 2)
        sums[: size - half] += sums[half:size]
        size = half
    return sums[:1].sum(axis=0)


def stored(scales, dtype):
    """Rounded to the type that scales are stored in, and never to 0."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = scales.astype(dtype)
    if np.isinf(rounded).any():
        raise ValueError(f"scale_dtype: float16 cannot hold the scale {scales.max():g}; use scale_dtype='float32'")
    return np.maximum(rounded, np.finfo(dtype).smallest_subnormal)
