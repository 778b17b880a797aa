"""Quantized weights."""

import math
from collections.abc import Mapping

import numpy as np

from . import _arguments as arguments
from . import _core, formats
from .affine import dequantize, quantize
from .grids import Grid
from .packing import pack, unpack

METHODS = ("minmax", "mse")
SCALE_DTYPES = ("float16", "float32")
STATE_VERSION = 1
STATE_ENTRIES = ("version", "format", "shape", "group_size", "codes", "scales")


class QuantizedWeight:
    """A weight [N, K] in few bits, packed for the selected ISA; made by `quantize_weight` or `from_int4`.

    ``W[n, k] = scale * (code - zero point)``, with a scale, and in an asymmetric weight a zero point, for each group of
    values along k. Pickles hold the plain codes, so they load on any machine and are packed there for its ISA.

    Attributes
    ----------
    format : str
        "int8", "int4" or "int2".
    group_size : int or None
        Values along k that share a scale; None: one scale an output channel.
    symmetric : bool
        Whether 0.0 is the middle code everywhere, and no zero points are stored.
    """

    __slots__ = ("format", "group_size", "packed", "symmetric")

    def __init__(self, format, codes, scales, zero_points=None, group_size=None):
        """codes: uint8 [N, K]; scales: float16 or float32, zero_points: uint8 or None, both [N, G], or [N] if there is
        one a row."""
        self.format = format
        self.group_size = _checked_group_size(group_size)
        self.symmetric = zero_points is None
        n, k = codes.shape
        shape = n, _group_count(k, self.group_size)
        if scales.dtype not in SCALE_DTYPES:
            raise TypeError(f"scales: got dtype {scales.dtype}, takes float16 or float32")
        self.packed = _core.PackedWeight(
            np.ascontiguousarray(codes), _by_group(scales, "scales", shape),
            None if zero_points is None else _by_group(zero_points, "zero_points", shape),
            {8: 0, 4: 1, 2: 2}[self.bits], self.group_size)

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
        """Bytes really stored: codes, scales, zero points, and padding."""
        return self.packed.nbytes

    @property
    def bits_per_weight(self):
        """Bits stored for each weight: everything in `nbytes`."""
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

    def dequantize(self):
        """The weight that products see.

        Returns
        -------
        float32 ndarray
            [N, K], exactly ``float32(code - zero point) * float32(scale)``.
        """
        codes, scales, zero_points = self._unpacked()
        if zero_points is None:
            zero_points = formats.find(self.format).zero
        axis = 0 if self.group_size is None else None
        return dequantize(codes, scales, zero_points, axis=axis, group_size=self.group_size)

    @classmethod
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
        qtype = arguments.qtype("int4" if q.dtype == np.int8 else "uint4")
        if q.size and (q.min() < qtype.qmin or q.max() > qtype.qmax):
            raise ValueError(f"q: {q.dtype} values must lie in {qtype.qmin} to {qtype.qmax} everywhere")
        zero = formats.find("int4").zero
        if q.dtype == np.int8:
            if zero_points is not None:
                raise ValueError("zero_points: only go with unsigned q; int8 values have 0 for zero point")
            codes = (q + np.int8(zero)).view(np.uint8)
        else:
            codes, zero_points = q, _int4_zero_points(zero_points, zero)
        scales = arguments.parameter(scales, "scales")
        if zero_points is not None and zero_points.ndim == 0:
            zero_points = np.full(scales.shape, zero_points)
        return cls("int4", codes, scales, zero_points, group_size)

    def to_state(self):
        """Named NumPy arrays that hold everything, independent of the ISA: what `numpy.savez` takes.

        Returns
        -------
        dict of str to ndarray
            "version" (1); "format"; "shape", [N, K]; "group_size", 0 for None; "codes", packed along K by `pack`, 0.0
            being the middle code or the zero point; "scales"; and in an asymmetric weight "zero_points".
        """
        codes, scales, zero_points = self._unpacked()
        state = {"version": np.array(STATE_VERSION), "format": np.array(self.format), "shape": np.array(self.shape),
                 "group_size": np.array(self.group_size or 0), "codes": _pack(codes, self.bits), "scales": scales}
        if zero_points is not None:
            state["zero_points"] = zero_points
        return state

    @classmethod
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
        if not isinstance(state, Mapping):
            raise TypeError(f"state: got {type(state).__name__}, takes a mapping of names to arrays")
        for name in STATE_ENTRIES:
            if name not in state:
                raise ValueError(f"state: lacks {name}")
        for name in state:
            if name not in (*STATE_ENTRIES, "zero_points"):
                raise ValueError(f"state: has {name!r}, which is no entry of it")
        try:
            return cls._from_entries({name: np.asarray(state[name]) for name in state})
        except (TypeError, ValueError, NotImplementedError) as error:
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
        group_size = arguments.scalar(state["group_size"], "group_size", 0, 2**62) or None
        codes = arguments.byte_array(state["codes"], "codes", unsigned_only=True)
        packed_shape = n, -(-k * record.bits // 8)
        if codes.shape != packed_shape:
            raise ValueError(f"codes: got shape {codes.shape}, takes {packed_shape} for the shape {(n, k)}")
        zero_points = state.get("zero_points")
        if zero_points is not None:
            zero_points = arguments.byte_array(zero_points, "zero_points", unsigned_only=True)
        return cls(record.name, _unpack(codes, record.bits, k), state["scales"], zero_points, group_size)

    def __reduce__(self):
        return QuantizedWeight.from_state, (self.to_state(),)

    def __repr__(self):
        n, k = self.shape
        groups = "" if self.group_size is None else f", groups of {self.group_size}"
        scheme = "" if self.symmetric else ", asymmetric"
        return f"<QuantizedWeight {n}x{k} {self.format}{groups}{scheme}, {self.bits_per_weight:.2f} bits per weight>"


def _group_count(k, group_size):
    return 1 if group_size is None else -(-k // group_size)


def _checked_group_size(group_size):
    if group_size is None:
        return None
    value = arguments.scalar(group_size, "group_size", -(2**62), 2**62)
    if value <= 0 or value % 32:
        raise ValueError(f"group_size: got {value}, takes None or a multiple of 32")
    return value


def _by_group(x, name, shape):
    """Contiguous [N, G]; [N] is taken where G is always 1, without groups."""
    if x.shape != shape and (shape[1] != 1 or x.shape != shape[:1]):
        raise ValueError(f"{name}: got shape {x.shape}, takes {shape}")
    return np.ascontiguousarray(x).reshape(shape)


def _int4_zero_points(x, zero):
    """uint8, of the given shape; None where all are the middle code."""
    if x is None:
        raise ValueError("zero_points: needed for unsigned q; a symmetric weight has 8")
    x = arguments.parameter(x, "zero_points")
    x = arguments.integer_parameter(x, "zero_points", x.shape)
    if x.size and (x.min() < 0 or x.max() > 15):
        raise ValueError("zero_points: must lie in 0 to 15 everywhere")
    return None if (x == zero).all() else x.astype(np.uint8)


def _pack(codes, bits):
    return codes if bits == 8 else pack(codes, bits)


def _unpack(packed, bits, k):
    return packed if bits == 8 else unpack(packed, bits, k, signed=False)


def quantize_weight(w, format="int8", *, group_size=None, symmetric=True, method="minmax", scale_dtype="float16",
                    full_range=False):
    """Quantize the weight of a linear layer.

    Parameters
    ----------
    w : float32 array
        [N, K], as PyTorch stores it. Any strides.
    format : {"int8", "int4", "int2"}
        Bits of a weight.
    group_size : int, optional
        So many values along K share a scale, a multiple of 32; the last group may be short. None: one scale an output
        channel.
    symmetric : bool, default True
        Levels symmetric around 0.0, see `choose_qparams`; otherwise groups have zero points, too.
    method : {"minmax", "mse"}
        What range the levels of a group cover: "minmax" all of it; "mse" what gives the least squared error of the
        weights among all of it and 97.5, 95, ... 20 % of it. The error is never above that of "minmax".
    scale_dtype : {"float16", "float32"}
        How scales are stored.
    full_range : bool, default False
        Symmetric only: use the lowest level, too; see `choose_qparams`.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    TypeError
        w is not float32.
    ValueError
        w is not 2-D or not finite, a scale overflows float16, or a parameter is not one of those named.
    NotImplementedError
        The format is planned, and not available yet.

    Notes
    -----
    Scales are those of `choose_qparams`, rounded to scale_dtype before zero points, ``saturate(round_half_even(-min /
    scale))``, and codes are chosen with them; those that float16 rounds to 0 become 2**-24, its least positive number.
    "mse" searches the ranges ``min * f`` to ``max * f``, each group for itself, and keeps the largest f of equal error
    (the clipping search of [1]_, on a grid). The result is the same on every processor, errors being summed in float64
    in a fixed order.

    References
    ----------
    .. [1] Y. Choukroun, E. Kravchik, F. Yang, P. Kisilev, "Low-bit quantization of neural networks for efficient
       inference", 2019, arXiv:1902.06822.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> w = np.random.default_rng(0).normal(size=(256, 1024)).astype(np.float32)
    >>> qw = qkernels.quantize_weight(w, "int4", group_size=32)
    >>> qw.shape, qw.format, qw.scales.shape
    ((256, 1024), 'int4', (256, 32))
    """
    w = arguments.float_array(w, "w")
    if w.ndim != 2:
        raise ValueError(f"w: got {w.ndim} dimension(s), takes [N, K]")
    record = formats.find(format)
    group_size = _checked_group_size(group_size)
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}, takes one of {', '.join(METHODS)}")
    if scale_dtype not in SCALE_DTYPES:
        raise ValueError(f"scale_dtype: got {scale_dtype!r}, takes one of {', '.join(SCALE_DTYPES)}")
    if full_range and not symmetric:
        raise ValueError("full_range: only applies to symmetric quantization; asymmetric ranges are always full")
    if not np.isfinite(w).all():
        raise ValueError("w: contains NaN or infinity")

    n, k = w.shape
    count = _group_count(k, group_size)
    groups = _one_a_row(w, count, group_size)
    grid = Grid(record.qtype, symmetric, full_range, scale_dtype)
    scales, zero_points = grid.cover(groups) if method == "minmax" else grid.search(groups)
    codes = quantize(groups, scales, zero_points, dtype=record.qtype, axis=0)
    codes = codes.reshape(n, count * groups.shape[1])[:, :k]
    zero_points = None if symmetric else zero_points.reshape(n, count)
    return QuantizedWeight(record.name, codes, scales.reshape(n, count), zero_points, group_size)


def _one_a_row(w, count, group_size):
    """The groups of a weight, each a row, the short ones filled up with zeros, which any grid has."""
    n, k = w.shape
    size = k if count <= 1 else group_size
    if count * size != k:
        w = np.pad(w, ((0, 0), (0, count * size - k)))
    return np.ascontiguousarray(w).reshape(n * count, size)
