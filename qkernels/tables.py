"""Table formats: weights of 16 int8 levels, of a published table or one that is trained for the weight."""

import numpy as np

from .groups import SHRINKS, Groups, row_sums, squared_errors, stored
from .kmeans import kmeans
from .rounding import nearest_codes

SIZE = 16  # levels of a table
TOP = 127  # the largest level of a trained one
TRAINING_SIZE = 2**18  # values on which a table for a tensor is trained
ROUNDS, ROW_ROUNDS = 4, 12  # of training: levels for the scales, and scales for the levels

# The middles between int8 levels are multiples of 1/2, so that all v in (h / 2 - 1/2, h / 2], h = ceil(2 v), have the
# same nearest level, with the lower of two equally near ones.
REACH = 2 * 128
HALF_STEPS = np.arange(-REACH, REACH + 1)


class Table:
    """Levels int8 [16], or [N, 16] for the rows of a weight, and the nearest of them for each half step: the level set
    of a table format. With levels by row, what is chosen for a row of `Groups` is its scale and its table's number."""

    __slots__ = ("levels", "codes_of", "values_of", "peak", "scale_dtype")

    def __init__(self, levels, scale_dtype):
        self.levels, self.scale_dtype = levels, scale_dtype
        self.codes_of = np.zeros((*levels.shape[:-1], len(HALF_STEPS)), np.uint8)
        least = np.full(self.codes_of.shape, 2**15 - 1, np.int16)
        for code in range(levels.shape[-1]):  # of codes with equal levels the first is used
            distance = np.abs(4 * levels[..., code, None].astype(np.int16) - (2 * HALF_STEPS - 1).astype(np.int16))
            self.codes_of[distance < least] = code
            np.minimum(least, distance, out=least)
        self.values_of = np.take_along_axis(levels, self.codes_of, axis=-1).astype(np.float32)
        self.peak = np.abs(levels.astype(np.float32)).max(axis=-1)

    def fit(self, groups, ranges):
        """The scale of each row: with it the largest level covers the row, or the squared error is the least."""
        owners = () if self.levels.ndim == 1 else (groups.owners(),)
        scales = np.empty(len(groups.rows), self.scale_dtype)
        for part in groups.pieces():
            rows, weights = groups.rows[part], None if groups.weights is None else groups.weights[part]
            own = tuple(entries[part] for entries in owners)
            largest = np.abs(rows).max(axis=1, initial=np.float32(0))
            shrinks = SHRINKS if ranges == "mse" else SHRINKS[:1]
            tried = [stored(largest * shrink / self.peak[own], self.scale_dtype) for shrink in shrinks]
            scales[part] = tried[0] if ranges == "minmax" else self._best_scales(rows, weights, tried, own)
        return scales, *owners

    def codes(self, rows, scales, *owner):
        """Of the nearest levels."""
        return np.take(self.codes_of, _half_steps(rows, scales, *owner))

    def integers(self, codes, _, *owner):
        """The levels of codes."""
        return self.levels[codes] if not owner else self.levels[owner[0].reshape(-1, *[1] * (codes.ndim - 1)), codes]

    @np.errstate(over="ignore", invalid="ignore")
    def _best_scales(self, rows, weights, candidates, own):
        """Of several scales for each row the best, or the least-squares scale for its codes if that is still better."""

        def error_of(scales):
            values = np.take(self.values_of, _half_steps(rows, scales, *own))
            return squared_errors(values * scales.astype(np.float32)[:, None] - rows, weights), values

        best, least = candidates[0], np.full(len(rows), np.inf)
        for scales in candidates:
            error, _ = error_of(scales)
            best, least = np.where(error < least, scales, best), np.fmin(least, error)
        _, values = error_of(best)
        product = row_sums(np.multiply(values, rows, dtype=np.float64), weights)
        square = squared_errors(values, weights)
        is_fit = (product > 0) & (square > 0)
        refit = np.where(is_fit, product / np.where(is_fit, square, 1), best).clip(0, np.finfo(best.dtype).max)
        refit = stored(refit, best.dtype)
        return np.where(error_of(refit)[0] < least, refit, best)


def _half_steps(rows, scales, owner=None):
    """Where `Table` looks values up: the half step of each, in the table of its owner."""
    with np.errstate(over="ignore"):
        steps = np.ceil(rows / scales.astype(np.float32)[:, None] * np.float32(2))
    steps = np.clip(steps, -REACH, REACH).astype(np.intp)
    steps += REACH if owner is None else (owner * len(HALF_STEPS) + REACH)[:, None]
    return steps


def train(w, start, group_size, ranges, scale_dtype, by_row, importance=None):
    """Levels int8 [16] for a weight, or [N, 16] for its rows, ascending and up to +-127.

    k-means of the values over their scales, each counting as much as its scale is worth, takes turns with the choice of
    scales; it begins with those of the table `start`. The tables of rows begin with that of the tensor and move by
    Lloyd's iterations, each level to the mean of its values.
    """
    groups = Groups(w, group_size, importance)
    sample, levels = groups.every(max(w.size // TRAINING_SIZE, 1)), start
    for _ in range(ROUNDS if ranges == "mse" else 1):
        scales = Table(levels, scale_dtype).fit(sample, ranges)[0].astype(np.float64)[:, None]
        worth = np.broadcast_to(scales * scales, sample.rows.shape)
        worth = worth if sample.weights is None else worth * sample.weights
        centres = kmeans((sample.rows / scales).ravel(), SIZE, worth.ravel())
        if not centres.any():  # nothing but zeros
            break
        levels = _to_int8(centres)
    if not by_row:
        return levels
    levels = np.tile(levels, (w.shape[0], 1))
    scales = Table(levels, scale_dtype).fit(groups, ranges)[0].astype(np.float64)
    for _ in range(ROW_ROUNDS):
        centres = _centres_by_row(groups, Table(levels, scale_dtype), scales)
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
    owners = groups.owners()
    slots = owners[:, None] * SIZE + nearest_codes(groups, table, (scales, owners))
    scales = scales[:, None]
    weighted = scales if groups.weights is None else scales * groups.weights
    moment = np.bincount(slots.ravel(), (weighted * groups.rows).ravel(), table.levels.size)
    worth = np.bincount(slots.ravel(), np.broadcast_to(weighted * scales, slots.shape).ravel(), table.levels.size)
    return np.where(worth > 0, moment / np.where(worth > 0, worth, 1), table.levels.ravel()).reshape(table.levels.shape)
