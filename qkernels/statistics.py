"""What the inputs of a linear layer are like: the second moments and means that calibrated quantization asks for."""

import math
import threading

import numpy as np

from . import _arguments as arguments
from . import _core

ROWS = 1024  # whose products are summed in float32; fewer wait for others, so that the work for a row stays small
ENTRIES = ("version", "count", "products", "sum", "sum_abs", "max_abs")  # of a state
LARGEST = 2.0**50  # of values; so many products of such add up to less than float32's largest number


class InputStatistics:
    """Statistics of the inputs x of a linear layer, collected from any number of batches.

    Parameters
    ----------
    k : int
        Values in a row of x.

    Attributes
    ----------
    count : int
        Rows seen.
    max_abs : float32 ndarray
        [K], the greatest ``|x|`` of each column.

    Notes
    -----
    Products of 1024 rows at a time are float32 matrix products, everything else is summed in float64. Statistics of
    parts that are merged equal those of the whole but for the rounding of these sums. Several threads may add to the
    same statistics and read them at once.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels.calibration import InputStatistics
    >>> seen = InputStatistics(2).observe(np.float32([[1, 2], [3, -4]]))
    >>> seen.hessian
    array([[ 5., -5.],
           [-5., 10.]])
    >>> seen.merge(InputStatistics(2).observe(np.float32([[0, 7]]))).count, seen.max_abs
    (3, array([3., 7.], dtype=float32))
    """

    __slots__ = ("count", "max_abs", "_lock", "_products", "_sum", "_sum_abs", "_waiting", "_used")

    def __init__(self, k):
        k = arguments.scalar(k, "k", 0, 2**31)
        self._lock = threading.Lock()  # of all other attributes, whose arrays never change once they are here
        self.count = 0
        self.max_abs = np.zeros(k, np.float32)
        self._products = np.zeros((k, k))
        self._sum, self._sum_abs = np.zeros(k), np.zeros(k)
        self._waiting, self._used = np.empty((0, k), np.float32), 0  # rows whose products are still to be summed

    @property
    def k(self):
        """Values in a row of x."""
        return len(self.max_abs)

    @property
    @_core.in_default_floating_mode
    def hessian(self):
        """float64 [K, K]: the mean of ``x x^T``, half of the Hessian of a squared output error; symmetric."""
        seen = self._snapshot()
        products = seen._all_products()
        return (products + products.T) / 2 / max(seen.count, 1)

    @property
    @_core.in_default_floating_mode
    def mean(self):
        """float64 [K]: the mean of x."""
        seen = self._snapshot()
        return seen._sum / max(seen.count, 1)

    @property
    @_core.in_default_floating_mode
    def mean_abs(self):
        """float64 [K]: the mean of ``|x|``."""
        seen = self._snapshot()
        return seen._sum_abs / max(seen.count, 1)

    @_core.in_default_floating_mode
    def observe(self, x):
        """Add rows.

        Parameters
        ----------
        x : float32 array
            [..., K], of at most 2**50 in size.

        Returns
        -------
        InputStatistics
            Itself.

        Raises
        ------
        TypeError
            x is not float32.
        ValueError
            Its last dimension is not K, or it has NaN, infinities or values beyond 2**50; nothing was added then.
        """
        x = arguments.float_array(x, "x")
        if x.ndim == 0 or x.shape[-1] != self.k:
            raise ValueError(f"x: got shape {x.shape}, takes [..., {self.k}]")
        if not -LARGEST <= x.min(initial=0) <= x.max(initial=0) <= LARGEST:
            raise ValueError("x: contains NaN, infinity or values beyond 2**50, whose products float32 might not hold")
        rows = x.reshape(math.prod(x.shape[:-1]), self.k)
        with self._lock:
            self._add(rows)
        return self

    def _add(self, rows):
        # Nothing of self changes before all is done, so that an interrupted call has added nothing: the rows that wait
        # are written to where none wait yet.
        products, waiting, used = self._products, self._waiting, self._used
        sums, sums_abs, max_abs = self._sum, self._sum_abs, self.max_abs
        for start in range(0, len(rows) if self.k else 0, ROWS):
            part = rows[start : start + ROWS]
            if used + len(part) > ROWS:
                products, used = _with_products(products, waiting[:used]), 0
                waiting = waiting[:0]
            if not len(waiting):
                waiting = np.empty((ROWS, self.k), np.float32)
            waiting[used : used + len(part)] = part
            used += len(part)
            size = np.abs(part)
            sums = sums + part.sum(axis=0, dtype=np.float64)
            sums_abs = sums_abs + size.sum(axis=0, dtype=np.float64)
            max_abs = np.maximum(max_abs, size.max(axis=0))
        self._products, self._waiting, self._used = products, waiting, used
        self._sum, self._sum_abs, self.max_abs = sums, sums_abs, max_abs
        self.count += len(rows)

    def _all_products(self):
        """With those of the rows that wait, which go on waiting."""
        return _with_products(self._products, self._waiting[: self._used])

    def _snapshot(self):
        """Another object with what was seen up to now."""
        seen = InputStatistics(0)
        with self._lock:
            for name in ("count", "max_abs", "_products", "_sum", "_sum_abs", "_waiting", "_used"):
                setattr(seen, name, getattr(self, name))
        return seen

    @_core.in_default_floating_mode
    def merge(self, other):
        """Add what another one has seen.

        Parameters
        ----------
        other : InputStatistics
            Of the same K.

        Returns
        -------
        InputStatistics
            Itself.

        Raises
        ------
        TypeError
            other is something else.
        ValueError
            Its K is another.
        """
        if not isinstance(other, InputStatistics):
            raise TypeError(f"other: got {type(other).__name__}, takes InputStatistics")
        if other.k != self.k:
            raise ValueError(f"other: has rows of {other.k} values, takes {self.k}")
        other = other._snapshot()
        products = other._all_products()
        with self._lock:
            self.count += other.count
            self._products = self._products + products
            self._sum, self._sum_abs = self._sum + other._sum, self._sum_abs + other._sum_abs
            self.max_abs = np.maximum(self.max_abs, other.max_abs)
        return self

    @_core.in_default_floating_mode
    def to_state(self):
        """Named arrays that hold everything, as `numpy.savez` takes them.

        Returns
        -------
        dict of str to ndarray
            "version" (1), "count", and the sums "products" [K, K], "sum", "sum_abs" and "max_abs" [K].
        """
        seen = self._snapshot()
        return {"version": np.array(1), "count": np.array(seen.count), "products": seen._all_products(),
                "sum": seen._sum.copy(), "sum_abs": seen._sum_abs.copy(), "max_abs": seen.max_abs.copy()}

    @classmethod
    @_core.in_default_floating_mode
    def from_state(cls, state):
        """The inverse of `to_state`.

        Parameters
        ----------
        state : mapping of str to array
            As `to_state` gives it, or `numpy.load`.

        Returns
        -------
        InputStatistics

        Raises
        ------
        TypeError
            state is not a mapping.
        ValueError
            The state is not complete or not consistent; the message names the entry.
        """
        arguments.check_state(state, ENTRIES)
        try:
            arguments.scalar(state["version"], "version", 1, 1)
            k = np.size(state["sum"])
            if np.shape(state["products"]) != (k, k):  # before memory for so many is taken
                raise ValueError(f"products: got shape {np.shape(state['products'])}, takes {(k, k)}")
            made = cls(k)
            made.count = arguments.scalar(state["count"], "count", 0, 2**62)
        except (TypeError, ValueError) as error:
            raise ValueError(f"state: {error}") from None
        for name, own in [("products", made._products), ("sum", made._sum), ("sum_abs", made._sum_abs),
                          ("max_abs", made.max_abs)]:  # fmt: skip
            entry = np.asarray(state[name])
            if entry.shape != own.shape or entry.dtype.kind != "f" or not np.isfinite(entry).all():
                raise ValueError(f"state: {name}: got {entry.dtype} {entry.shape}, takes finite floats {own.shape}")
            if name != "sum" and (np.diag(entry) if entry.ndim == 2 else entry).min(initial=0) < 0:
                raise ValueError(f"state: {name}: takes no sizes or squares below 0")
            own[...] = entry
        if not made.count and (made._products.any() or made.max_abs.any()):
            raise ValueError("state: count: got 0, takes the number of rows that the sums are of")
        return made

    def __reduce__(self):
        return InputStatistics.from_state, (self.to_state(),)

    def __repr__(self):
        return f"<InputStatistics of {self.count} rows of {self.k} values>"


def _with_products(products, rows):
    return products + rows.T @ rows


def checked_statistics(x, name, k):
    """InputStatistics that have seen rows of k values."""
    if not isinstance(x, InputStatistics):
        raise TypeError(f"{name}: got {type(x).__name__}, takes InputStatistics")
    if x.k != k or not x.count:
        raise ValueError(f"{name}: has seen {x.count} rows of {x.k} values, takes some of {k}")
    return x
