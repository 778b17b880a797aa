"""Table formats: weights of 16 int8 levels, of a published table or one that is trained for the weight."""

import numpy as np

from .groups import SHRINKS, Groups, row_sums, squared_errors, stored
from .kmeans import kmeans

SIZE = 16  # levels of a table
TOP = 127  # the largest level of a trained one
TRAINING_SIZE = 2**18  # values on which a table for a tensor is trained
ROUNDS, ROW_ROUNDS = 4, 12  # of training: levels for the scales, and scales for the levels

# The middles between int8 levels are multiples of 1/2, so that all v in (h / 2 - 1/2, h / 2], h = ceil(2 v), have the
# same nearest level, with the lower of two equally near ones.
REACH = 2 * 128
HALF_STEPS = np.arange(-REACH, REACH + 1)


class Table:
    """Levels int8 [16], or [N, 16] for the rows of a weight, and the nearest of them for each half step."""

    __slots__ = ("levels", "codes", "values", "peak")

    def __init__(self, levels):
        self.levels = levels
        self.codes = np.zeros((*levels.shape[:-1], len(HALF_STEPS)), np.uint8)
        least = np.full(self.codes.shape, 2**15 - 1, np.int16)
        for code in range(levels.shape[-1]):  # of codes with equal levels the first is used
            distance = np.abs(4 * levels[..., code, None].astype(np.int16) - (2 * HALF_STEPS - 1).astype(np.int16))
            self.codes[distance < least] = code
            np.minimum(least, distance, out=least)
        self.values = np.take_along_axis(levels, self.codes, axis=-1).astype(np.float32)
        self.peak = np.abs(levels.astype(np.float32)).max(axis=-1)

    def of_rows(self, groups, part):
        """For some rows of groups: the largest level, and where `codes` and `values` have half step 0."""
        if self.levels.ndim == 1:
            return self.peak, np.full((1, 1), REACH)
        owner = groups.owners()[part]
        return self.peak[owner], (owner * len(HALF_STEPS) + REACH)[:, None]


def quantize_table(w, levels, group_size, method, scale_dtype, importance=None):
    """Codes [N, K] and scales [N, G] of a weight for levels int8 [16] or [N, 16]."""
    groups, table = Groups(w, group_size, importance), Table(levels)
    scales = _choose_scales(groups, table, method, scale_dtype)
    return groups.codes(_codes(groups, table, scales)), groups.by_group(scales)


def _codes(groups, table, scales):
    codes = np.empty(groups.rows.shape, np.uint8)
    for part in groups.pieces():
        _, origin = table.of_rows(groups, part)
        codes[part] = np.take(table.codes, _half_steps(groups.rows[part], scales[part]) + origin)
    return codes


def _half_steps(rows, scales):
    with np.errstate(over="ignore"):
        steps = np.ceil(rows / scales.astype(np.float32)[:, None] * np.float32(2))
    return np.clip(steps, -REACH, REACH).astype(np.intp)


def _choose_scales(groups, table, method, scale_dtype):
    """The scale of each row: with it the largest level covers the row, or the squared error is the least."""
    scales = np.empty(len(groups.rows), scale_dtype)
    for part in groups.pieces():
        rows, weights = groups.rows[part], None if groups.weights is None else groups.weights[part]
        peak, origin = table.of_rows(groups, part)
        largest = np.abs(rows).max(axis=1, initial=np.float32(0))
        shrinks = SHRINKS if method == "mse" else SHRINKS[:1]
        tried = [stored(largest * shrink / peak, scale_dtype) for shrink in shrinks]
        scales[part] = tried[0] if method == "minmax" else _best_scales(rows, weights, tried, table, origin)
    return scales


@np.errstate(over="ignore", invalid="ignore")
def _best_scales(rows, weights, candidates, table, origin):
    """Of several scales for each row the best, or the least-squares scale for its codes if that is still better."""

    def error_of(scales):
        values = np.take(table.values, _half_steps(rows, scales) + origin)
        return squared_errors(values * scales.astype(np.float32)[:, None] - rows, weights), values

    best, least = candidates[0], np.full(len(rows), np.inf)
    for scales in candidates:
        error, _ = error_of(scales)
        best, least = np.where(error < least, scales, best), np.fmin(least, error)
    _, values = error_of(best)
    product = row_sums(np.multiply(values, rows, dtype=np.float64), weights)
    square = squared_errors(values, weights)
    refit = np.where(square > 0, product / square, 0).clip(0, np.finfo(best.dtype).max)
    refit = stored(refit, best.dtype)
    return np.where(error_of(refit)[0] < least, refit, best)


def train(w, start, group_size, method, scale_dtype, by_row, importance=None):
    """Levels int8 [16] for a weight, or [N, 16] for its rows, ascending and up to +-127.

    k-means of the values over their scales, each counting as much as its scale is worth, takes turns with the choice of
    scales; it begins with those of the table `start`. The tables of rows begin with that of the tensor and move by
    Lloyd's iterations, each level to the mean of its values.
    """
    groups = Groups(w, group_size, importance)
    sample, levels = groups.every(max(w.size // TRAINING_SIZE, 1)), start
    for _ in range(ROUNDS if method == "mse" else 1):
        scales = _choose_scales(sample, Table(levels), method, scale_dtype).astype(np.float64)[:, None]
        worth = np.broadcast_to(scales * scales, sample.rows.shape)
        worth = worth if sample.weights is None else worth * sample.weights
        centres = kmeans((sample.rows / scales).ravel(), SIZE, worth.ravel())
        if not centres.any():  # nothing but zeros
            break
        levels = _to_int8(centres)
    if not by_row:
        return levels
    levels = np.tile(levels, (w.shape[0], 1))
    scales = _choose_scales(groups, Table(levels), method, scale_dtype).astype(np.float64)
    for _ in range(ROW_ROUNDS):
        centres = _centres_by_row(groups, Table(levels), scales)
        levels = _to_int8(centres)
        scales *= (np.abs(centres).max(axis=1) / TOP)[groups.owners()]
    return levels


def _to_int8(centres):
    """Levels in proportion to centres, which are ascending; the last stands for those that lack of 16."""
    peak = np.abs(centres).max(axis=-1, keepdims=True, initial=0)
    levels = np.rint(centres * (TOP / np.where(peak > 0, peak, 1))).astype(np.int8)
    missing = [(0, 0)] * (levels.ndim - 1) + [(0, SIZE - levels.shape[-1])]
    return np.pad(levels, missing, mode="edge")


def _centres_by_row(groups, table, scales):
    """[N, 16]: the (weighted) mean of what each level of a row stands for, over the scale; without values the level."""
    slots = groups.owners()[:, None] * SIZE + _codes(groups, table, scales)
    scales = scales[:, None]
    weighted = scales if groups.weights is None else scales * groups.weights
    moment = np.bincount(slots.ravel(), (weighted * groups.rows).ravel(), table.levels.size)
    worth = np.bincount(slots.ravel(), np.broadcast_to(weighted * scales, slots.shape).ravel(), table.levels.size)
    return np.where(worth > 0, moment / np.where(worth > 0, worth, 1), table.levels.ravel()).reshape(table.levels.shape)
