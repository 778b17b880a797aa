"""Formats whose levels are not evenly spaced: tables, signs, trellises. Products with them are those of weights.py."""

import numpy as np

from . import trellis, weights
from .weights import SHRINKS, Weight, block_size, by_group, stored, sum_of_squares, sum_rows

LEVELS = {
    "nf4": np.int8([-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127]),
    "log4": np.int8([0, 1, 2, 4, 8, 16, 32, 64, 0, -1, -2, -4, -8, -16, -32, -64]),
    "binary": np.int8([-1, 1]),
    "ternary": np.int8([-2, -1, 0, 1]),
}
BITS = {"nf4": 4, "codebook4": 4, "log4": 4, "binary": 1, "ternary": 2}


def weight_of_codes(format, codes, scales, group_size, table=None):
    """A Weight of one of BITS; "codebook4" has a table, int8 [16] or [N, 16]."""
    levels = LEVELS[format] if table is None else table
    levels = levels[codes] if levels.ndim == 1 else np.take_along_axis(levels, codes.astype(np.int64), axis=1)
    return Weight(codes, scales, None, BITS[format], group_size, format, levels, table)


def weight_of_stream(stream, scales, bits, group_size, k, levels, window=None):
    """A Weight of a trellis: the bytes of its words, and the levels of its states, int8 [64] or [2**window]."""
    block = block_size(k, group_size)
    width, word = -(-k // block) * block, block if window else 32
    decoded = trellis.decode(stream.reshape(len(stream) * width // word, word * bits // 8), levels, bits)
    if window is None:  # values 4 q + i of a word lie at 8 i + q
        decoded = decoded.reshape(len(decoded), 4, 8).transpose(0, 2, 1)
    decoded = decoded.reshape(len(stream), width)[:, :k]
    return Weight(stream, scales, None, bits, group_size, f"trellis{bits}", decoded, None, window)


def nearest(x, levels):
    """The code of the nearest of some levels, of two equally near ones the lower, of equal ones the first."""
    values, codes = np.unique(levels, return_index=True)
    best, code = np.full(x.shape, float(values[0])), np.full(x.shape, codes[0])
    for value, index in zip(values[1:], codes[1:]):
        is_nearer = x > (best + value) / 2
        best[is_nearer], code[is_nearer] = value, index
    return code.astype(np.uint8)


def quantize_weight(w, format="int8", *, group_size=None, method=None, scale_dtype="float16", table=None,
                    importance=None, **options):
    """w [N, K] to a Weight; "codebook4" takes its table."""
    if format.startswith("int"):
        method, options = method or "minmax", {"scale_dtype": scale_dtype, **options}
        return weights.quantize_weight(w, format, group_size=group_size, method=method, **options)
    n, k = w.shape
    groups, count = by_group(w, group_size)
    counts, _ = by_group(np.ones(w.shape, np.float32) if importance is None else importance, group_size)
    if format == "binary":
        scales = stored(means(groups, counts), scale_dtype)
        codes = np.where(groups < 0, 0, 1)
    elif format == "ternary":
        scales = means(groups, counts) if method == "absmean" else best_means(groups)
        scales = stored(scales, scale_dtype)
        with np.errstate(over="ignore"):
            codes = np.clip(np.rint(groups / scales.astype(np.float32)[:, None]), -1, 1) + 2
    else:
        table = LEVELS[format] if table is None else table
        tables = np.repeat(np.broadcast_to(table, (n, 16)), count, axis=0)
        method = method or {"nf4": "minmax"}.get(format, "mse")
        codes = np.zeros(groups.shape, np.uint8)
        scales = np.zeros(n * count, scale_dtype)
        for i, levels in enumerate(tables):
            codes[i], scales[i] = search(groups[i], counts[i], levels, method, scale_dtype)
    codes = codes.reshape(n, count * groups.shape[1])[:, :k].astype(np.uint8)
    scales = scales.reshape(n, count) if k else np.ones((n, count), scale_dtype)  # which packed weights do not store
    return weight_of_codes(format, codes, scales, group_size, table if format == "codebook4" else None)


def search(x, counts, levels, method, scale_dtype):
    """Codes and scale of one group: the largest level at its largest value, or the least squared error."""
    peak = np.float32(np.abs(levels.astype(np.int64)).max())
    largest = np.abs(x).max(initial=np.float32(0))

    def attempt(scale):
        with np.errstate(over="ignore", invalid="ignore"):
            code = nearest(x / np.float32(scale), levels)
            error = levels[code].astype(np.float32) * np.float32(scale) - x
            return code, sum_of_squares(error[None], counts[None])[0]

    best = stored(largest / peak, scale_dtype)
    code, least = attempt(best)
    if method == "minmax":
        return code, best
    for shrink in SHRINKS[1:]:
        scale = stored(largest * shrink / peak, scale_dtype)
        tried, error = attempt(scale)
        if error < least:
            best, code, least = scale, tried, error
    # The least-squares scale of these codes, and the codes that go with it.
    level = levels[code].astype(np.float64)
    product, square = (sum_rows((level * factor * counts)[None])[0] for factor in (x, level))
    if not (product > 0 and square > 0):
        return code, best
    scale = stored(np.clip(product / square, 0, np.finfo(scale_dtype).max), scale_dtype)
    tried, error = attempt(scale)
    return (tried, scale) if error < least else (code, best)


def means(groups, counts):
    """mean |w| of each row."""
    return sum_rows(np.abs(groups).astype(np.float64)) / np.maximum(counts.sum(axis=1), 1)


def best_means(groups):
    """The mean of the m greatest |w| of each row, for the m at which zeros for the others cost the least."""
    best = np.zeros(len(groups))
    for i, row in enumerate(groups):
        total, most = 0.0, -1.0
        for m, value in enumerate(sorted(np.abs(row).tolist(), reverse=True), 1):
            total += value
            if total * total / m > most:  # the squared error is the sum of squares less this
                best[i], most = total / m, total * total / m
    return best
