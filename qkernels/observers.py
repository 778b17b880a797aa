"""Observers: the ranges of values, collected batch by batch, from which scales and zero points follow.

The one that counts values by size is in `histogram_observer`; `calibration` has the public names.
"""

import math
import threading

import numpy as np

from . import _arguments as arguments
from . import _core
from .qparams import QParams, Scheme, checked_method


class Observer:
    """What all observers have. Not made itself: see `MinMaxObserver`, `MovingAverageObserver`, `HistogramObserver`.

    A class says what one batch gives (`_fill`) and how that joins what was seen before (`_join`). Several threads may
    add to the same observer and read it at once.

    Parameters
    ----------
    axis : int, optional
        The axis that has its own scales; None for one scale per tensor.

    Attributes
    ----------
    axis : int or None
    count : int
        Values seen.
    """

    __slots__ = ("axis", "count", "_lock", "_low", "_high")
    _METHODS = ("minmax",)
    _PARAMETERS = ("axis",)
    _ARRAYS = {"low": np.float32, "high": np.float32}  # entries of a state, and attributes behind an underscore

    def __init__(self, axis=None):
        self.axis = None if axis is None else arguments.scalar(axis, "axis", -64, 63)
        self._lock = threading.Lock()  # of what was seen, whose arrays never change once they are here
        self.count = 0
        self._low = self._high = np.zeros(0, np.float32)  # [scales], once there is a value

    @property
    @_core.in_default_floating_mode
    def low(self):
        """float32, of the shape of the scales: the lower ends of the ranges of the values."""
        return self._shaped(self._low.astype(np.float32))

    @property
    @_core.in_default_floating_mode
    def high(self):
        """float32, of the shape of the scales: the upper ends of the ranges of the values."""
        return self._shaped(self._high.astype(np.float32))

    @_core.in_default_floating_mode
    def observe(self, x):
        """Add a batch.

        Parameters
        ----------
        x : float32 array
            Finite, of any shape and strides (copied once when not C-contiguous), but always of the same length along
            `axis`. A batch without values changes nothing.

        Returns
        -------
        Observer
            Itself.

        Raises
        ------
        TypeError
            x is not float32.
        ValueError
            x lacks the axis or has another length along it, or it has NaN or infinities; nothing was added then.
        """
        blocks = self._blocks(arguments.float_array(x, "x"))
        if not blocks.size:
            return self
        low, high = (end(blocks, axis=(0, 2)) + np.float32(0) for end in (np.min, np.max))  # -0.0 becomes 0.0
        if not (np.isfinite(low) & np.isfinite(high)).all():
            raise ValueError("x: contains NaN or infinity")
        batch = self._empty()
        batch._fill(blocks, low, high)
        batch.count = blocks.size
        return self.merge(batch)

    @_core.in_default_floating_mode
    def merge(self, other):
        """Add what another observer has seen.

        Parameters
        ----------
        other : Observer
            Of the same kind and with the same parameters.

        Returns
        -------
        Observer
            Itself.

        Raises
        ------
        TypeError
            other is something else.
        ValueError
            Its parameters or its number of scales are others; nothing was added then.
        """
        if type(other) is not type(self):
            raise TypeError(f"other: got {type(other).__name__}, takes {type(self).__name__}")
        for name in self._PARAMETERS:
            if getattr(other, name) != getattr(self, name):
                raise ValueError(f"other: has {name}={getattr(other, name)}, takes {getattr(self, name)}")
        other = other._snapshot()
        with self._lock:
            if not other.count:
                return self
            if not self.count:
                for name in self._ARRAYS:
                    setattr(self, f"_{name}", getattr(other, f"_{name}").copy())
            elif len(other._low) != len(self._low):
                raise ValueError(f"other: has {len(other._low)} scales, takes {len(self._low)}")
            else:
                self._join(other)
            self.count += other.count
        return self

    def _empty(self):
        """One with the same parameters."""
        return type(self)(**{name: getattr(self, name) for name in self._PARAMETERS})

    def _snapshot(self):
        """Another observer with what was seen up to now."""
        seen = self._empty()
        with self._lock:
            for name in ("count", *(f"_{name}" for name in self._ARRAYS)):
                setattr(seen, name, getattr(self, name))
        return seen

    @_core.in_default_floating_mode
    def qparams(self, dtype="uint8", *, symmetric=False, method="minmax", percentile=None, full_range=False):
        """Scales and zero points for the values seen.

        Parameters
        ----------
        dtype : str, default "uint8"
            "int8", "uint8", "int4", "uint4", "int2" or "uint2".
        symmetric, percentile, full_range
            See `qkernels.choose_qparams`.
        method : str
            "minmax"; of a `HistogramObserver` also "percentile", "mse" or "entropy".

        Returns
        -------
        QParams
            With `scale` (float32) and `zero_point` (int8 or uint8) of shape () per tensor, [C] per axis.

        Raises
        ------
        TypeError
            dtype is unknown, or percentile is not a number.
        ValueError
            A parameter is not one of those named, or no value was seen.
        """
        scheme = Scheme(arguments.qtype(dtype).name, symmetric, full_range)
        percentile = checked_method(method, percentile, self._METHODS)
        seen = self._snapshot()
        if not seen.count:
            raise ValueError("observer: has seen no values; call observe(x) first")
        parameters = scheme.spread(*seen._ranges(scheme, method, percentile))
        return QParams(*map(self._shaped, parameters), scheme.qtype, self.axis, None)

    def to_state(self):
        """Named arrays that hold everything, as `numpy.savez` takes them.

        Returns
        -------
        dict of str to ndarray
            "version" (1), "observer", the name of the class, its parameters, "axis" left out where it is None,
            "count", and once a value was seen "low", "high" and what else the class has, a row for each scale.
        """
        seen = self._snapshot()
        state = {"version": np.array(1), "observer": np.array(type(self).__name__), "count": np.array(seen.count)}
        state |= {name: np.array(getattr(self, name)) for name in self._PARAMETERS if getattr(self, name) is not None}
        return state | {name: np.array(getattr(seen, f"_{name}")) for name in self._ARRAYS if seen.count}

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
        Observer

        Raises
        ------
        TypeError
            state is not a mapping.
        ValueError
            The state is not complete or not consistent; the message names the entry.
        """
        needed = [name for name in cls._PARAMETERS if name != "axis"]
        arguments.check_state(state, ("version", "observer", "count", *needed), ("axis", *cls._ARRAYS))
        try:
            return cls._from_entries({name: np.asarray(state[name]) for name in state})
        except (TypeError, ValueError) as error:
            raise ValueError(f"state: {error}") from None

    @classmethod
    def _from_entries(cls, state):
        arguments.scalar(state.pop("version"), "version", 1, 1)
        name = state.pop("observer")[()]
        if name != cls.__name__:
            raise ValueError(f"observer: got {name!r}, takes {cls.__name__!r}")
        count = arguments.scalar(state.pop("count"), "count", 0, 2**62)
        made = cls(**{name: state.pop(name)[()] for name in cls._PARAMETERS if name in state})
        made.count = count
        if set(state) != (set(cls._ARRAYS) if count else set()):
            raise ValueError(f"has the entries {', '.join(state)}, takes {', '.join(cls._ARRAYS)} if count is not 0")
        for name, dtype in cls._ARRAYS.items() if count else ():
            setattr(made, f"_{name}", state[name].astype(dtype, casting="same_kind"))
        if count:
            made._check_arrays()
        return made

    def __reduce__(self):
        return type(self).from_state, (self.to_state(),)

    def __repr__(self):
        parameters = "".join(f", {name}={getattr(self, name)}" for name in self._PARAMETERS)
        return f"<{type(self).__name__} of {self.count} values{parameters}>"

    def _shaped(self, x):
        """An array [scales] in the shape that scales have."""
        return x[0] if self.axis is None and len(x) else x

    def _blocks(self, x):
        """x as [outer, scales, inner]."""
        if self.axis is None:
            return x.reshape(1, 1, x.size)
        if not -x.ndim <= self.axis < x.ndim:
            raise ValueError(f"x: got shape {x.shape}, takes one with an axis {self.axis}")
        axis = self.axis % x.ndim
        if self.count and x.shape[axis] != len(self._low):
            raise ValueError(f"x: got shape {x.shape}, takes {len(self._low)} along axis {self.axis}")
        return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))

    def _ranges(self, scheme, method, percentile):
        return self._low.astype(np.float32), self._high.astype(np.float32)

    def _check_arrays(self):
        """Of a state: their shapes and values."""
        scales = len(np.atleast_1d(self._low))
        for name in ("low", "high"):
            ends = getattr(self, f"_{name}")
            if ends.shape != (scales,) or not np.isfinite(ends).all():
                raise ValueError(f"{name}: takes {scales} finite numbers")
        if not scales or self.count % scales or (self.axis is None and scales != 1):
            raise ValueError(f"low: got {scales} scales for {self.count} values and axis={self.axis}")
        if (self._low > self._high).any():
            raise ValueError("low: is above high")


class MinMaxObserver(Observer):
    """The least and the greatest of all values.

    Parameters
    ----------
    axis : int, optional
        The axis that has its own scales; None for one scale per tensor.

    Notes
    -----
    Observers of parts that are merged, in any order, equal one of the whole, bit for bit.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels.calibration import MinMaxObserver
    >>> seen = MinMaxObserver().observe(np.float32([0, 1, 6])).merge(MinMaxObserver().observe(np.float32([-1])))
    >>> seen
    <MinMaxObserver of 4 values, axis=None>
    >>> float(seen.low), float(seen.high), int(seen.qparams("uint8").zero_point)
    (-1.0, 6.0, 36)
    """

    __slots__ = ()

    def _fill(self, blocks, low, high):
        self._low, self._high = low, high

    def _join(self, other):
        self._low, self._high = np.minimum(self._low, other._low), np.maximum(self._high, other._high)


class MovingAverageObserver(Observer):
    """The average of the least, and of the greatest values of batches, in which the newest batches count most.

    Parameters
    ----------
    momentum : float, default 0.01
        How much a new batch counts: ``low += momentum * (least of the batch - low)``; more than 0, at most 1.
        PyTorch's ``averaging_constant``.
    axis : int, optional
        The axis that has its own scales; None for one scale per tensor.

    Notes
    -----
    In float64; the first batch sets the range, as in PyTorch's MovingAverageMinMaxObserver. The result depends on the
    order of the batches. `merge` gives what this observer would have if it had gone on with the other one's batches,
    but for float64 rounding: the other one's average, had it begun with this one's range and not with that of its first
    batch, is ``other.low + (1 - momentum)**batches * (self.low - other's first)``.

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels.calibration import MovingAverageObserver
    >>> seen = MovingAverageObserver(0.25).observe(np.float32([0, 4])).observe(np.float32([0, 8]))
    >>> float(seen.high)
    5.0
    """

    __slots__ = ("momentum", "_first_low", "_first_high", "_decay")
    _PARAMETERS = ("momentum", "axis")
    _ARRAYS = {"low": np.float64, "high": np.float64, "first_low": np.float64, "first_high": np.float64,
               "decay": np.float64}  # fmt: skip

    def __init__(self, momentum=0.01, axis=None):
        super().__init__(axis)
        self.momentum = arguments.positive(momentum, "momentum", 1)
        self._first_low = self._first_high = self._low
        self._decay = np.float64(1)  # (1 - momentum)**batches

    def _fill(self, blocks, low, high):
        self._low, self._high = self._first_low, self._first_high = low.astype(np.float64), high.astype(np.float64)
        self._decay = np.float64(1 - self.momentum)

    def _join(self, other):
        self._low = other._low + other._decay * (self._low - other._first_low)
        high = other._high + other._decay * (self._high - other._first_high)
        self._high = np.maximum(high, self._low)  # rounding might take it below
        self._decay = self._decay * other._decay

    def _check_arrays(self):
        super()._check_arrays()
        for name in ("first_low", "first_high"):
            ends = getattr(self, f"_{name}")
            if ends.shape != self._low.shape or not np.isfinite(ends).all():
                raise ValueError(f"{name}: takes {len(self._low)} finite numbers")
        if self._decay.shape or not 0 <= self._decay <= 1:
            raise ValueError("decay: takes a number from 0 to 1")
