"""The groups of a weight: values along k that share a scale. Sums over them are the same on every processor."""

import numpy as np

from . import _arguments as arguments

SEARCH_SIZE = 2**18  # values that a search takes at a time, to stay in cache
SHRINKS = np.float32([1 - i / 40 for i in range(33)])  # the parts of a range that a search tries


def checked_group_size(group_size):
    if group_size is None:
        return None
    value = arguments.scalar(group_size, "group_size", -(2**62), 2**62)
    if value <= 0 or value % 32:
        raise ValueError(f"group_size: got {value}, takes None or a multiple of 32")
    return value


def group_count(k, group_size):
    return 1 if group_size is None else -(-k // group_size)


class Groups:
    """The groups of a weight [N, K], each a row; short ones are filled up with zeros.

    Attributes
    ----------
    size : int
        Values in a row.
    rows : float32 ndarray
        [N * G, size].
    weights : float64 ndarray or None
        The importance of each value, 0 where a row is filled up; None: all count alike.
    """

    __slots__ = ("rows", "weights", "shape", "count", "size")

    def __init__(self, w, group_size, importance=None):
        """importance: [N, K] or None."""
        self.shape, self.count = w.shape, group_count(w.shape[1], group_size)
        self.size = w.shape[1] if self.count <= 1 else group_size
        self.rows = self.by_row(w)
        if importance is None and self.count * self.size != w.shape[1]:
            importance = np.broadcast_to(np.float64(1), w.shape)
        self.weights = None if importance is None else self.by_row(importance)

    def by_row(self, x):
        """[N * G, size] of the entries of x [N, K]."""
        n, k = self.shape
        if self.count * self.size != k:
            x = np.pad(x, ((0, 0), (0, self.count * self.size - k)))
        return np.ascontiguousarray(x).reshape(n * self.count, self.size)

    def pieces(self):
        """Slices of the rows, of about `SEARCH_SIZE` values each."""
        step = max(SEARCH_SIZE // max(self.size, 1), 1)
        return [slice(start, start + step) for start in range(0, len(self.rows), step)]

    def every(self, step):
        """Every so many-th row alone."""
        some = Groups(self.rows[::step], None)
        some.weights = None if self.weights is None else self.weights[::step]
        return some

    def owners(self):
        """The row of the weight to which each row belongs."""
        return np.repeat(np.arange(self.shape[0]), self.count)

    def lengths(self):
        """How many values of each row are the weight's."""
        n, k = self.shape
        return np.tile(np.diff(np.minimum(np.arange(self.count + 1) * self.size, k)), n)

    def by_value(self, x):
        """[N, K] of the entries of x, which has the shape of the rows."""
        return x.reshape(self.shape[0], self.count * self.size)[:, : self.shape[1]]

    def by_group(self, x):
        """[N, G] of a value for each row."""
        return x.reshape(self.shape[0], self.count)


def stored(scales, dtype):
    """Scales as they are stored: rounded to dtype, and those that become 0 the least positive number of it."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = scales.astype(dtype)
    if np.isinf(rounded).any():
        raise ValueError(f"scale_dtype: {dtype} cannot hold the scale {scales.max():g}; use scale_dtype='float32'")
    return np.maximum(rounded, np.finfo(dtype).smallest_subnormal)


def row_sums(x, weights=None):
    """The (weighted) sum of each row in float64."""
    return _sums(np.array(x.T, np.float64, order="C"), weights)


def squared_errors(errors, weights=None):
    """The (weighted) sum of the squares of each row of float32."""
    return _sums(np.square(np.ascontiguousarray(errors.T), dtype=np.float64), weights)


def _sums(columns, weights):
    """Over the columns, which are overwritten: halves are added until one is left, in the same order everywhere.

    They lie one after another in memory, because long rows are added faster than short pieces of them.
    """
    if weights is not None:
        columns *= weights.T
    size = len(columns)
    while size > 1:
        half = -(-size // 2)
        columns[: size - half] += columns[half:size]
        size = half
    return columns[:1].sum(axis=0)
