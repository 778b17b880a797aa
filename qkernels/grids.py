"""Integer formats: scales and zero points of groups of values, from their range or the best of several parts of it."""

import numpy as np

from . import _arguments as arguments
from . import _core, ranges
from .affine import Layout, quantize
from .groups import stored
from .qparams import Scheme


class Grid(Scheme):
    """The level set of an integer format: what is fitted is scales and zero points, as they are stored."""

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

    def fit(self, groups, method):
        """Scales and zero points of rows: of their whole ranges, or of the parts with the least squared error."""
        low, high = ranges.limits(groups.rows)
        if method == "mse":
            low, high = ranges.least_squares(groups.rows, low, high, self)
        return self.spread(low, high)

    def codes(self, rows, scales, zero_points):
        """Of the nearest levels; without the checks of `quantize`, which are more work than a column is."""
        codes = np.empty(rows.shape, np.uint8)
        layout, qtype = Layout(rows.shape, 0, None), arguments.qtype(self.qtype)
        _core.quantize(_core.contiguous(rows), layout.struct, qtype.range,
                       scales.astype(np.float32), zero_points.astype(np.int32), codes)
        return codes

    def integers(self, codes, _, zero_points):
        """The levels of codes."""
        return codes.astype(np.int16) - zero_points.reshape(-1, *[1] * (codes.ndim - 1))
