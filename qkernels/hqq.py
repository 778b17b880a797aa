"""Half-quadratic quantization: scales, and zero points of asymmetric integers, for which a sum of powers |error|^p,
p < 1, is small, so that few weights with large errors do not decide (H. Badri, A. Shaji, "Half-Quadratic Quantization
of large machine learning models", 2023).

With an auxiliary error e of each weight, which takes up what is better left unexplained, two steps take turns: e is the
proximal point of |error|^p, and scale and zero point fit w - e by least squares. The published method fits a real zero
point, the scale being given; rounded to an integer, as it is stored, it would stay where the range of the group has it.
So the zero point is rounded in each step here, and the scale is fitted, too; and errors are shrunk in units of it, so
that the result does not depend on the size of the weights. """

import numpy as np

from . import _arguments as arguments
from . import ranges
from .groups import row_sums, stored

POWER, BETA, KAPPA, ITERATIONS = 0.7, 10.0, 1.01, 20  # as published


def fit(groups, grid):
    """Scales and zero points of the rows of groups, as `Grid.fit` chooses them.

    In no group is the sum of |error| greater than with the range of the group. It depends on the last bits of NumPy's
    powers, and so on the processor.
    """
    scales, zero_points = np.empty(len(groups.rows), grid.scale_dtype), np.empty(len(groups.rows), np.uint8)
    for part in groups.pieces():
        weights = None if groups.weights is None else groups.weights[part]
        scales[part], zero_points[part] = _optimized(groups.rows[part], weights, groups.lengths()[part], grid)
    return scales, zero_points


def _optimized(rows, weights, lengths, grid):
    """The scales and zero points of least mean |error| that the iteration comes by; it starts with the whole range."""
    top, beta = arguments.qtype(grid.qtype).qmax, BETA
    scales, zero_points = best = grid.spread(*ranges.limits(rows))
    least = np.full(len(rows), np.inf)
    for _ in range(ITERATIONS):
        codes = grid.codes(rows, scales, zero_points)
        scale = scales.astype(np.float64)[:, None]
        error = rows / scale - (codes - zero_points.astype(np.float64)[:, None])
        loss = row_sums(np.abs(error) * scale, weights)
        best = [np.where(loss < least, new, old) for new, old in zip((scales, zero_points), best)]
        least = np.fmin(loss, least)

        target = rows / scale - _shrunk(error, beta)
        if not grid.symmetric:
            zeros = row_sums(codes - target, weights) / np.maximum(lengths, 1)
            zero_points = np.rint(zeros).clip(0, top).astype(np.uint8)
        levels = codes - zero_points.astype(np.float64)[:, None]
        scales = _fitted(scales, row_sums(levels * target, weights), row_sums(levels * levels, weights))
        beta *= KAPPA
    return best


def _shrunk(error, beta):
    """The proximal point of |error|^p as published: small errors become 0, large ones hardly change."""
    size = np.abs(error)
    with np.errstate(divide="ignore"):  # 0 to a negative power is infinity, which leaves 0
        return np.sign(error) * np.maximum(size - size ** (POWER - 1) / beta, 0)


def _fitted(scales, product, square):
    """Scales times product / square, the least-squares factor; the given ones where no positive one is the best."""
    is_positive = (product > 0) & (square > 0)
    factor = np.where(is_positive, product, 1) / np.where(is_positive, square, 1)
    largest = np.finfo(scales.dtype).max
    return stored((scales.astype(np.float64) * factor).clip(0, largest), scales.dtype)
