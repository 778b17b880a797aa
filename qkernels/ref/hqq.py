"""Half-quadratic quantization of one group after another."""

import numpy as np

from .affine import quantize
from .weights import Weight, by_group, quantize_weight, stored, sum_rows


def quantize_hqq(w, bits, group_size=None, scale_dtype="float16", symmetric=False):
    """w [N, K] to a Weight, its zero points given in any case."""
    n, k = w.shape
    start = quantize_weight(w, f"int{bits}", group_size=group_size, symmetric=symmetric, scale_dtype=scale_dtype)
    groups, count = by_group(w, group_size)
    counts, _ = by_group(np.ones(w.shape), group_size)
    codes, scales = np.zeros(groups.shape, np.uint8), start.scales.ravel()
    zero_points = np.full(scales.shape, 2 ** (bits - 1), np.uint8) if symmetric else start.zero_points.ravel()
    for i, x in enumerate(groups):
        scales[i], zero_points[i] = optimized(x, counts[i], scales[i], zero_points[i], bits, symmetric)
        codes[i] = quantize(x, scales[i], zero_points[i], dtype=f"uint{bits}")
    codes = codes.reshape(n, count * groups.shape[1])[:, :k]
    return Weight(codes, scales.reshape(n, count), zero_points.reshape(n, count), bits, group_size)


def optimized(x, counts, scale, zero, bits, symmetric):
    """Scale and zero point with the least sum |error| of 20 steps; beta grows by 1 % a step. counts: 1, and 0 where the
    group is filled up."""

    def total(values):
        return sum_rows((values * counts)[None])[0]

    best, least, beta = (scale, zero), np.inf, 10.0
    for _ in range(20):
        s, z = float(scale), float(zero)
        code = quantize(x, scale, zero, dtype=f"uint{bits}").astype(np.float64)
        error = np.float64(x) / s - (code - z)
        loss = total(np.abs(error) * s)
        if loss < least:
            best, least = (scale, zero), loss

        kept = np.abs(error) > 0  # the proximal point of |e|**0.7
        large = np.where(kept, np.abs(error), 1.0)
        shrunk = np.where(kept, np.sign(error) * np.maximum(large - large**-0.3 / beta, 0), 0)
        target = np.float64(x) / s - shrunk
        if not symmetric:
            zero = np.uint8(min(max(np.rint(total(code - target) / counts.sum()), 0), 2**bits - 1))
        level = code - float(zero)
        product, square = total(level * target), total(level * level)
        if product > 0 and square > 0:
            scale = stored(np.minimum(s * (product / square), np.finfo(scale.dtype).max), scale.dtype)
        beta *= 1.01
    return best
