"""Integer formats: scales and zero points of groups of values, from their range or the best of several parts of it."""

import numpy as np

from .affine import choose_qparams, fake_quantize, quantize
from .groups import SHRINKS, Groups, squared_errors, stored


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

    def cover(self, rows):
        """The whole range of each row."""
        return self.spread(*_range(rows))

    def search(self, groups):
        """The part of each row's range with the least squared error."""
        scales, zero_points = np.empty(len(groups.rows), self.scale_dtype), np.empty(len(groups.rows), np.uint8)
        for part in groups.pieces():
            scales[part], zero_points[part] = self._search(groups.rows[part])
        return scales, zero_points

    def _search(self, rows):
        low, high = _range(rows)
        best, least = None, np.full(len(rows), np.inf)
        for shrink in SHRINKS:
            tried = self.spread(low * shrink, high * shrink)
            error = squared_errors(fake_quantize(rows, *tried, dtype=self.qtype, axis=0) - rows)
            better = error < least
            best = tried if best is None else [np.where(better, new, old) for new, old in zip(tried, best)]
            least = np.where(better, error, least)
        return best


def quantize_integers(w, grid, group_size, method):
    """Codes [N, K], scales and zero points [N, G] of a weight."""
    groups = Groups(w, group_size)
    scales, zero_points = grid.cover(groups.rows) if method == "minmax" else grid.search(groups)
    codes = quantize(groups.rows, scales, zero_points, dtype=grid.qtype, axis=0)
    return groups.codes(codes), groups.by_group(scales), groups.by_group(zero_points)


def _range(rows):
    """The least and greatest of each row and 0."""
    return rows.min(axis=1, initial=np.float32(0)), rows.max(axis=1, initial=np.float32(0))
