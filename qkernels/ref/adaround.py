"""The best of all roundings down or up, by trying them."""

import itertools

import numpy as np


def best_rounding(w, scales, zero_points, top, hessian):
    """Codes [N, K] with the least trace(E H E^T) of all 2**K a row, and that cost of each row.

    w, scales and zero_points: [N, K]; codes lie in 0 to top. Of equal costs the first is taken, all down being the
    first of all.
    """
    codes, costs = np.zeros(w.shape, np.uint8), np.full(len(w), np.inf)
    for i, (row, scale, zero) in enumerate(zip(w, scales.astype(np.float32), zero_points.astype(np.float64))):
        lower = np.floor(row / scale) + zero
        for up in itertools.product((0, 1), repeat=len(row)):
            code = np.clip(lower + up, 0, top)
            error = scale * (code - zero) - row
            cost = error @ hessian @ error
            if cost < costs[i]:
                codes[i], costs[i] = code, cost
    return codes, costs
