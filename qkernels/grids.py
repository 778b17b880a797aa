"""Integer formats: scales and zero points of groups of values, from their range or the best of several parts of it."""

import numpy as np

from . import ranges
from .affine import quantize
from .groups import Groups, stored
from .qparams import Scheme


class Grid(Scheme):
    """How scales and zero points follow from the ranges of groups, and are stored."""

    __slots__ = ("scale_dtype",)

    def __init__(self, qtype, symmetric, full_range, scale_dtype):
        super().__init__(qtype, symmetric, full_range)
        self.scale_dtype = scale_dtype

    def spread(self, low, high):
        """Scales as they are stored, and zero points, whose levels lie from low to high, [groups] and not above 0 or
        below it."""
        scales, zero_points = super().spread(low, high)
        scales = stored(scales, self.scale_dtype)
        if self.symmetric:
            return scales, zero_points
        return scales, quantize(-low, scales, dtype=self.qtype, axis=0)

    def cover(self, rows):
        """The whole range of each row."""
        return self.spread(*ranges.limits(rows))

    def search(self, groups):
        """The part of each row's range with the least squared error."""
        return self.spread(*ranges.least_squares(groups.rows, *ranges.limits(groups.rows), self))


def quantize_integers(w, grid, group_size, method):
    """Codes [N, K], scales and zero points [N, G] of a weight."""
    groups = Groups(w, group_size)
    scales, zero_points = grid.cover(groups.rows) if method == "minmax" else grid.search(groups)
    codes = quantize(groups.rows, scales, zero_points, dtype=grid.qtype, axis=0)
    return groups.codes(codes), groups.by_group(scales), groups.by_group(zero_points)
