"""Quantized weights: what they hold, and their states."""

import math

import numpy as np

from . import _arguments as arguments
from . import _core, formats, trellis
from .affine import dequantize
from .groups import checked_group_size, group_count
from .hadamard import hadamard
from .weight_parts import (
    SCALE_DTYPES, by_group, check_extents, checked_input_scales, checked_levels, checked_window, code_bytes,
    int4_zero_points, pack_codes, state_bytes, unpack_codes)

STATE_VERSION = 1
STATE_ENTRIES = ("version", "format", "shape", "group_size", "codes", "scales")
LARGE_SCALE = np.float32(2.0**64)  # with smaller ones no value overflows while it is rotated back
OTHER_ENTRIES = ("zero_points", "levels", "window", "seed", "input_scales")


class QuantizedWeight:
    """A weight [N, K] in few bits, packed for the selected ISA; made by `quantize_weight` or `from_int4`.

    ``W[n, k] = scale * level``, with a scale for each group of values along k, and for a level the integer that a code
    means: ``code - zero point`` in "int8", "int4" and "int2". Pickles hold the plain codes, so they load on any machine
    and are packed there for its ISA.

    Attributes
    ----------
    format : str
        See `quantize_weight`.
    group_size : int or None
        Values along k that share a scale; None: one scale an output channel.
    symmetric : bool
        Whether no zero points are stored.
    levels : int8 ndarray or None
        What the codes of a table mean, [16], or [N, 16] by row; [64] for the windows of a trellis.
    window : int or None
        Bits of a state of a trellis whose levels are computed.
    seed : int or None
        Of the rotation of the rows, see `hadamard`; None: they are not rotated.
    input_scales : float32 ndarray or None
        [K], what x is multiplied with before the product; the packed weight is W divided by them.
    """

    __slots__ = ("format", "group_size", "input_scales", "levels", "packed", "seed", "symmetric", "window")

    @_core.in_default_floating_mode
    def __init__(self, format, codes, scales, zero_points=None, group_size=None, *, levels=None, k=None, window=None,
                 seed=None, input_scales=None):
        """codes: uint8 [N, K], of a trellis [N, bytes], and then k; scales: float16 or float32, zero_points: uint8 or
        None, both [N, G], or [N] if there is one a row; levels: int8 [16] or [N, 16] for "codebook4"."""
        is_trellis = formats.find(format).family == "trellis"
        columns = k if is_trellis else codes.shape[1]
        check_extents((len(codes), columns), "codes")
        record = self._set_scheme(format, (len(codes), columns), group_size, zero_points is None, levels, window, seed,
                                  input_scales)
        if record.family == "ternary" and codes.size and not codes.all():
            raise ValueError("codes: those of ternary are 1, 2 and 3")
        shape = len(codes), group_count(columns, self.group_size)
        if scales.dtype not in SCALE_DTYPES:
            raise TypeError(f"scales: got dtype {scales.dtype}, takes float16 or float32")
        self.packed = _core.PackedWeight(
            _core.contiguous(codes), by_group(scales, "scales", shape),
            None if zero_points is None else by_group(zero_points, "zero_points", shape),
            self._coding(record), self.group_size, self.levels, columns, self._state_bits(record))

    @classmethod
    @_core.in_default_floating_mode
    def from_memory(cls, memory, format, shape, layout, *, group_size, scale_dtype, has_zero_points, levels=None,
                    window=None, seed=None, input_scales=None):
        """A weight that was packed before, by this process or another one, and is used where it lies.

        Parameters
        ----------
        memory : uint8 ndarray
            What ``packed.memory`` was: contiguous, aligned to 64. Its header is looked at once, here; if another program
            changes the bytes later, as it can in a mapped file, the values of the weight change, and nothing else.
        format, group_size, levels, window, seed, input_scales
            As the attributes.
        shape : (int, int)
            (N, K).
        layout : dict
            That of the packed form, as ``_core.weight_layout()`` gives it; if it is not what the selected ISA's kernel
            takes, the weight is unpacked and packed anew.
        scale_dtype : {"float16", "float32"}
            Of the scales.
        has_zero_points : bool
            Whether it is not symmetric.

        Returns
        -------
        QuantizedWeight

        Raises
        ------
        TypeError, ValueError
            memory is no weight of this kind; the message names the argument.
        """
        made = cls.__new__(cls)
        n, k = shape = _checked_shape(shape)
        record = made._set_scheme(format, shape, group_size, not has_zero_points, levels, window, seed, input_scales)
        if scale_dtype not in SCALE_DTYPES:
            raise ValueError(f"scale_dtype: got {scale_dtype!r}, takes one of {', '.join(SCALE_DTYPES)}")
        is_trellis = record.family == "trellis"
        columns = code_bytes(k, record, made.group_size) if is_trellis else k
        made.packed = _core.PackedWeight.of_memory(
            memory, n, k, columns, made._coding(record), made.group_size, made.levels, made._state_bits(record),
            np.dtype(scale_dtype).itemsize, has_zero_points, layout)
        if made.packed is None:
            raise ValueError("memory: is no packed weight of this format, shape and layout")
        if layout == _core.weight_layout():
            return made
        codes, scales, zero_points = made._unpacked()
        return cls(record.name, codes, scales, zero_points, group_size, levels=levels, k=k if is_trellis else None,
                   window=made.window, seed=seed, input_scales=input_scales)

    def repacked(self, layout):
        """The packed form in another layout than that of the selected ISA, for a file.

        Parameters
        ----------
        layout : dict
            As ``_core.weight_layout()`` gives it.

        Returns
        -------
        _core.PackedWeight
        """
        record = formats.find(self.format)
        return _core.PackedWeight(*self.packed.unpack(), self._coding(record), self.group_size, self.levels,
                                  self.shape[1], self._state_bits(record), layout)

    def _set_scheme(self, format, shape, group_size, symmetric, levels, window, seed, input_scales):
        """All attributes but the packed form; returns the record of the format."""
        record = formats.find(format)
        self.format = record.name
        self.group_size = checked_group_size(group_size)
        self.symmetric = symmetric
        if not symmetric and record.family != "integer":
            raise ValueError(f"zero_points: {record.name} has none")
        self.window = checked_window(window, record)
        self.levels = checked_levels(levels, record, self.window, shape[0])
        self.seed = None if seed is None else arguments.scalar(seed, "seed", 0, 2**64 - 1)
        if input_scales is not None and self.seed is not None:
            raise ValueError("input_scales: cannot be combined with a rotation")
        self.input_scales = checked_input_scales(input_scales, shape[1])
        return record

    def _coding(self, record):
        """The number of the packed form."""
        return record.coding + (formats.FINE_CODING if self.window else 0)

    def _state_bits(self, record):
        """Of a trellis; 0 of other formats."""
        return self.window or trellis.FAST_WINDOW if record.family == "trellis" else 0

    @property
    def shape(self):
        """(N, K)."""
        return self.packed.shape

    @property
    def bits(self):
        """Bits of a code."""
        return formats.find(self.format).bits

    @property
    def nbytes(self):
        """Bytes of all arrays of `to_state`: codes, scales and whatever else it has; the same on every processor."""
        return self.nbytes_of(self.shape)

    def nbytes_of(self, shape):
        """`nbytes` of a weight like this one of another shape, (N, K), or of a stack of such, (E, N, K)."""
        levels = self.levels if self.format == "codebook4" else None
        return state_bytes(formats.find(self.format), shape, self.group_size, self.packed.scale_dtype,
                           has_zero_points=not self.symmetric, row_tables=levels is not None and levels.ndim == 2,
                           integers=[self.window, self.seed], has_input_scales=self.input_scales is not None)

    @property
    def packed_nbytes(self):
        """Bytes that the packed form takes in memory, padding included; those of other ISAs take more or less."""
        return self.packed.nbytes

    @property
    def bits_per_weight(self):
        """Bits for each weight: everything in `nbytes`."""
        return 8 * self.nbytes / max(math.prod(self.shape), 1)

    @property
    def scales(self):
        """float16 or float32 [N, G], or [N] without groups; unpacked anew each time."""
        return self._unpacked()[1]

    @property
    def zero_points(self):
        """uint8 of the shape of `scales`, None in a symmetric weight; unpacked anew each time."""
        return self._unpacked()[2]

    def _unpacked(self):
        """Codes, scales and zero points as the constructor takes them."""
        codes, scales, zero_points = self.packed.unpack()
        if self.group_size is None:
            scales = scales[:, 0]
            zero_points = None if zero_points is None else zero_points[:, 0]
        return codes, scales, zero_points

    @_core.in_default_floating_mode
    def dequantize(self):
        """The weight that products see.

        Returns
        -------
        float32 ndarray
            [N, K], exactly ``float32(level) * float32(scale)``, rotated back by `hadamard` if `seed` is not None, and
            multiplied by `input_scales` if there are any. Where this overflows on the way to a finite value, it is done
            with ``scale / 2**64``, and the result multiplied by 2**64.
        """
        return self.dequantizer()(slice(None))

    def dequantizer(self):
        """The function from a slice of rows to what `dequantize` has there; the codes are unpacked once, for all.

        It may use the memory of ``out``, float32 of the shape of the result, and returns what to look at.
        """
        codes, scales, zero_points = self._unpacked()
        record = formats.find(self.format)

        def rows_of(rows, out=None):
            zero = 0
            if record.family in ("integer", "ternary"):
                integers, zero = codes[rows], record.zero if zero_points is None else zero_points[rows]
            else:
                integers = self._integers(codes, record, rows)
            w = self._values(integers, scales[rows], zero, out)
            if self.seed is None and self.input_scales is None or scales[rows].max(initial=0) < LARGE_SCALE:
                return w
            with np.errstate(over="ignore"):
                smaller = self._values(integers, scales[rows] / LARGE_SCALE, zero)
                return np.where(np.isfinite(w), w, smaller * LARGE_SCALE)

        return rows_of

    def _values(self, integers, scales, zero, out=None):
        """What integers mean, as the weight was before it was rotated or divided by input scales."""
        axis = 0 if self.group_size is None else None
        w = dequantize(integers, scales, zero, axis=axis, group_size=self.group_size, out=out)
        if self.input_scales is not None:
            with np.errstate(over="ignore"):
                w *= self.input_scales
        return w if self.seed is None else hadamard(w, seed=self.seed, inverse=True)

    def _integers(self, codes, record, rows):
        """The levels of the codes of some rows, int8 [N, K]."""
        codes = codes[rows]
        if record.family == "binary":
            return (2 * codes).view(np.int8) - np.int8(1)
        if record.family == "trellis":
            return trellis.decode(codes, record.bits, self._state_bits(record), self.shape[1], self.group_size)
        return self.levels[codes] if self.levels.ndim == 1 else np.take_along_axis(self.levels[rows], codes, axis=1)

    @classmethod
    @_core.in_default_floating_mode
    def from_int4(cls, q, scales, zero_points=None, *, group_size=None):
        """A weight from ready-made 4-bit integers, as GPTQ and AWQ give them, without a change.

        Parameters
        ----------
        q : int8 or uint8 array
            [N, K], one value a byte: int8 in [-8, 7], or uint8 in [0, 15]. Checkpoints that hold them by columns,
            [K, N], are transposed first (``q.T``, and likewise the others); `unpack` takes nibbles apart.
        scales : float16 or float32 array
            [N, ceil(K / group_size)]; without groups [N] or [N, 1].
        zero_points : int or integer array, optional
            For uint8 q, and needed there: in [0, 15], of the shape of scales or one for all (8 where a symmetric
            checkpoint has none). Where all are 8, none is stored.
        group_size : int, optional
            Values along k that share a scale, a multiple of 32; None for one scale a row.

        Returns
        -------
        QuantizedWeight

        Raises
        ------
        TypeError
            An argument's dtype is not one that it takes.
        ValueError
            A shape does not match, a value is out of range, or a scale is not finite and > 0.

        Notes
        -----
        Any strides. Files of GPTQ's first version hold zero points less 1; add it before. Weights whose columns were
        reordered (``desc_act``) need the columns of x in that order, too.

        Examples
        --------
        >>> import numpy as np, qkernels
        >>> q, zero_points = np.arange(64, dtype=np.uint8).reshape(2, 32) % 16, np.uint8([7, 8])
        >>> qw = qkernels.QuantizedWeight.from_int4(q, np.float32([0.5, 0.25]), zero_points)
        >>> qw.dequantize()[:, :4]
        array([[-3.5 , -3.  , -2.5 , -2.  ],
               [-2.  , -1.75, -1.5 , -1.25]], dtype=float32)
        """
        q = arguments.byte_array(q, "q")
        if q.ndim != 2:
            raise ValueError(f"q: got {q.ndim} dimension(s), takes [N, K]")
        check_extents(q.shape, "q")
        qtype = arguments.qtype("int4" if q.dtype == np.int8 else "uint4")
        if q.size and (q.min() < qtype.qmin or q.max() > qtype.qmax):
            raise ValueError(f"q: {q.dtype} values must lie in {qtype.qmin} to {qtype.qmax} everywhere")
        zero = formats.find("int4").zero
        if q.dtype == np.int8:
            if zero_points is not None:
                raise ValueError("zero_points: only go with unsigned q; int8 values have 0 for zero point")
            codes = (q + np.int8(zero)).view(np.uint8)
        else:
            codes, zero_points = q, int4_zero_points(zero_points, zero)
        scales = arguments.parameter(scales, "scales")
        if zero_points is not None and zero_points.ndim == 0:
            zero_points = np.full(scales.shape, zero_points)
        return cls("int4", codes, scales, zero_points, group_size)

    def to_state(self):
        """Named NumPy arrays that hold everything, independent of the ISA: what `numpy.savez` takes.

        Returns
        -------
        dict of str to ndarray
            "version" (1); "format"; "shape", [N, K]; "group_size", 0 for None; "codes", packed along K by `pack`, those
            of a trellis as they are; "scales"; and where the weight has them "zero_points", "levels" (of "codebook4";
            the other formats' are their own), "window", "seed" and "input_scales".
        """
        codes, scales, zero_points = self._unpacked()
        record = formats.find(self.format)
        state = {"version": np.array(STATE_VERSION, np.int64), "format": np.array(self.format),
                 "shape": np.array(self.shape, np.int64), "group_size": np.array(self.group_size or 0, np.int64),
                 "codes": pack_codes(codes, record), "scales": scales}
        others = {"zero_points": zero_points, "levels": self.levels if record.name == "codebook4" else None,
                  "window": None if self.window is None else np.int64(self.window),
                  "seed": None if self.seed is None else np.uint64(self.seed), "input_scales": self.input_scales}
        return state | {name: np.array(entry) for name, entry in others.items() if entry is not None}

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
        QuantizedWeight

        Raises
        ------
        TypeError
            state is not a mapping.
        ValueError
            The state is not complete or not consistent; the message names the entry.
        """
        arguments.check_state(state, STATE_ENTRIES, OTHER_ENTRIES)
        try:
            return cls._from_entries({name: np.asarray(state[name]) for name in state})
        except (TypeError, ValueError) as error:
            raise ValueError(f"state: {error}") from None

    @classmethod
    def _from_entries(cls, state):
        version = arguments.scalar(state["version"], "version", 1, 2**62)
        if version != STATE_VERSION:
            raise ValueError(f"version: got {version}, takes {STATE_VERSION}")
        record = formats.find(state["format"][()])
        if state["shape"].shape != (2,):
            raise ValueError(f"shape: got shape {state['shape'].shape}, takes 2 integers")
        n, k = (arguments.scalar(length, "shape", 0, 2**60) for length in state["shape"])
        check_extents((n, k), "shape")
        group_size = arguments.scalar(state["group_size"], "group_size", 0, 2**62) or None
        codes = arguments.byte_array(state["codes"], "codes", unsigned_only=True)
        packed_shape = n, code_bytes(k, record, group_size)
        if codes.shape != packed_shape:
            raise ValueError(f"codes: got shape {codes.shape}, takes {packed_shape} for the shape {(n, k)}")
        others = {name: state.get(name) for name in OTHER_ENTRIES}
        if others["zero_points"] is not None:
            arguments.byte_array(others["zero_points"], "zero_points", unsigned_only=True)
        return cls(record.name, unpack_codes(codes, record, k), state["scales"], group_size=group_size,
                   k=k if record.family == "trellis" else None, **others)

    def __reduce__(self):
        return QuantizedWeight.from_state, (self.to_state(),)

    def __repr__(self):
        n, k = self.shape
        groups = "" if self.group_size is None else f", groups of {self.group_size}"
        others = [(not self.symmetric, ", asymmetric"), (self.window, f", window of {self.window} bits"),
                  (np.ndim(self.levels) == 2, ", a table a row"), (self.seed is not None, ", rotated"),
                  (self.input_scales is not None, ", inputs scaled")]
        scheme = "".join(text for applies, text in others if applies)
        return f"<QuantizedWeight {n}x{k} {self.format}{groups}{scheme}, {self.bits_per_weight:.2f} bits per weight>"


def _checked_shape(shape):
    """(N, K)."""
    try:
        n, k = shape
    except (TypeError, ValueError):
        raise TypeError(f"shape: got {shape!r}, takes (N, K)") from None
    shape = tuple(arguments.scalar(length, "shape", 0, 2**60) for length in (n, k))
    check_extents(shape, "shape")
    return shape
