"""Stacks of quantized weights [E, N, K], such as those of the experts of a layer."""

import math
import operator
from collections.abc import Sequence

import numpy as np

from . import _arguments as arguments
from .weights import OTHER_ENTRIES, STATE_ENTRIES, QuantizedWeight

SHARED = ("version", "format", "group_size", "window", "seed")  # entries of a state that are those of each weight


class QuantizedWeightStack(Sequence):
    """Weights of one shape and scheme, one for each expert; made by `quantize_weight` of a float32 array [E, N, K].

    A sequence: ``stack[e]`` is a `QuantizedWeight`, which `linear` takes, and ``stack[a:b]`` a stack. In one that comes
    from a file each weight is made, and compared with its checksums, when it is asked for.

    Parameters
    ----------
    weights : sequence of QuantizedWeight
        One or more, which differ in nothing but their codes, scales, zero points, tables and input scales; some may
        have no input scales.

    Attributes
    ----------
    shape : (int, int, int)
        (E, N, K).

    Raises
    ------
    TypeError, ValueError
        weights are none, or not alike; the message names the first one.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> w = np.random.default_rng(0).normal(size=(8, 64, 128)).astype(np.float32)
    >>> stack = qkernels.quantize_weight(w, "int4", group_size=32)
    >>> len(stack), stack.shape, stack[2].shape, stack[:3].shape
    (8, (8, 64, 128), (64, 128), (3, 64, 128))
    >>> y = qkernels.linear(np.ones((5, 128), np.float32), stack[2])
    """

    __slots__ = ("_has_input_scales", "_like", "_weights", "shape")

    def __init__(self, weights):
        weights = list(weights)
        if not weights:
            raise ValueError("weights: got none, takes one or more")
        for i, weight in enumerate(weights):
            if not isinstance(weight, QuantizedWeight):
                raise TypeError(f"weights: {i}: got {type(weight).__name__}, takes a QuantizedWeight")
            if _scheme(weight) != _scheme(weights[0]):
                raise ValueError(f"weights: {i}: got {weight!r}, takes one like the first, {weights[0]!r}")
        self._set(weights, any(weight.input_scales is not None for weight in weights))

    @classmethod
    def of_sequence(cls, weights, has_input_scales):
        """A stack of weights that are known to be alike, and may be made when they are asked for.

        Parameters
        ----------
        weights : sequence of QuantizedWeight
            One or more.
        has_input_scales : bool
            Whether one of them has.

        Returns
        -------
        QuantizedWeightStack
        """
        made = cls.__new__(cls)
        made._set(weights, has_input_scales)
        return made

    def _set(self, weights, has_input_scales):
        self._weights, self._like, self._has_input_scales = weights, weights[0], has_input_scales
        self.shape = (len(weights), *self._like.shape)

    def __len__(self):
        return len(self._weights)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return QuantizedWeightStack([self._weights[i] for i in range(len(self))[index]])
        return self._weights[operator.index(index)]

    @property
    def format(self):
        """As that of each weight; and so are `group_size`, `symmetric`, `window` and `seed`."""
        return self._like.format

    @property
    def group_size(self):
        return self._like.group_size

    @property
    def symmetric(self):
        return self._like.symmetric

    @property
    def window(self):
        return self._like.window

    @property
    def seed(self):
        return self._like.seed

    @property
    def nbytes(self):
        """Bytes of all arrays of `to_state`; the same on every processor."""
        of_input_scales = 4 * len(self) * self.shape[2]
        return self._like.nbytes_of(self.shape) + of_input_scales * (
            self._has_input_scales - (self._like.input_scales is not None))

    @property
    def packed_nbytes(self):
        """Bytes that the packed forms take in memory, padding included; those of other ISAs take more or less."""
        return sum(weight.packed_nbytes for weight in self)

    @property
    def bits_per_weight(self):
        """Bits for each weight: everything in `nbytes`."""
        return 8 * self.nbytes / max(math.prod(self.shape), 1)

    def dequantize(self):
        """The weights that products see: float32 [E, N, K]."""
        w = np.empty(self.shape, np.float32)
        for out, weight in zip(w, self, strict=True):
            out[...] = weight.dequantize()
        return w

    def to_state(self):
        """Named NumPy arrays that hold everything, independent of the ISA.

        Returns
        -------
        dict of str to ndarray
            As `QuantizedWeight.to_state` has them, with "shape" [E, N, K], and those of all weights stacked along a
            first axis: "codes", "scales", "zero_points", "levels" and "input_scales". Where only some weights have
            input scales, those of the others are zeros.
        """
        states = [weight.to_state() for weight in self]
        if self._has_input_scales:
            none = np.zeros(self.shape[2], np.float32)
            states = [{"input_scales": none} | own for own in states]
        stacked = {name: np.stack([own[name] for own in states]) for name in states[0] if name not in SHARED}
        shared = {name: states[0][name] for name in states[0] if name in SHARED}
        return shared | stacked | {"shape": np.array(self.shape, np.int64)}

    @classmethod
    def from_state(cls, state):
        """The inverse of `to_state`.

        Parameters
        ----------
        state : mapping of str to array
            As `to_state` gives it, or `numpy.load`.

        Returns
        -------
        QuantizedWeightStack

        Raises
        ------
        TypeError
            state is not a mapping.
        ValueError
            The state is not complete or not consistent; the message names the entry.
        """
        arguments.check_state(state, STATE_ENTRIES, OTHER_ENTRIES)
        state = {name: np.asarray(state[name]) for name in state}
        if state["shape"].shape != (3,):
            raise ValueError(f"state: shape: got shape {state['shape'].shape}, takes 3 integers")
        count = arguments.scalar(state["shape"][0], "state: shape", 1, 2**60)
        own = {name: entry for name, entry in state.items() if name not in (*SHARED, "shape")}
        shared = {name: entry for name, entry in state.items() if name in SHARED}
        for name, entry in own.items():
            if entry.ndim < 2 or len(entry) != count:
                raise ValueError(f"state: {name}: got shape {entry.shape}, takes ({count}, ...)")
        weights = []
        for i in range(count):
            parts = {name: entry[i] for name, entry in own.items() if name != "input_scales" or entry[i].any()}
            weights.append(QuantizedWeight.from_state(shared | {"shape": state["shape"][1:]} | parts))
        return cls(weights)

    def __reduce__(self):
        return QuantizedWeightStack.from_state, (self.to_state(),)

    def __repr__(self):
        return f"<QuantizedWeightStack of {len(self)} like {self._like!r}>"


class MadeWhenAsked(Sequence):
    """So many weights, each made once, when it is asked for.

    Parameters
    ----------
    count : int
    make : callable
        From the number of a weight to the QuantizedWeight.
    """

    def __init__(self, count, make):
        self._count, self._make, self._made = count, make, {}

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        index = range(self._count)[index]
        if index not in self._made:
            self._made.setdefault(index, self._make(index))  # another thread may have been faster: all get the same
        return self._made[index]


def quantize_stack(quantize, w, calibration, importance):
    """A stack of what a function makes of each weight.

    Parameters
    ----------
    quantize : callable
        From w, calibration and importance of one weight to its QuantizedWeight.
    w : float32 ndarray
        [E, N, K].
    calibration : sequence
        One for each weight, or None where it has none.
    importance : array or None
        For all weights, or [E, N, K].
    """
    weights = []
    for i in range(len(w)):
        try:
            weights.append(quantize(w[i], calibration[i], importance[i] if np.ndim(importance) == 3 else importance))
        except ValueError as error:
            text = str(error)
            raise ValueError(f"w: {i}: {text.removeprefix('w: ')}" if text.startswith("w: ") else text) from None
    return QuantizedWeightStack(weights)


def _scheme(weight):
    """All that is the same for the weights of a stack."""
    levels = None if weight.format != "codebook4" else weight.levels.ndim
    return (weight.shape, weight.format, weight.group_size, weight.symmetric, weight.window, weight.seed, levels,
            weight.packed.scale_dtype, weight.packed.layout)
