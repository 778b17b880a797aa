"""Quantized weights, and linear layers that use them."""

import math

import numpy as np

from . import _arguments as arguments
from . import _core
from .affine import choose_qparams, dequantize, dynamic_quantize, quantize
from .gemm import PackedB, int8_gemm, pack_b

FORMATS = ("int8", "int4", "int2", "nf4", "codebook4", "log4", "binary", "ternary", "trellis2", "trellis3", "trellis4")


class QuantizedWeight:
    """A weight [N, K] in few bits, packed for the selected ISA; made by `quantize_weight`.

    Attributes
    ----------
    shape : (int, int)
        (N, K).
    format : str
        "int8".
    group_size : int or None
        None: one scale an output channel.
    scales : float32 ndarray
        [N].
    """

    __slots__ = ("format", "group_size", "packed", "scales")

    def __init__(self, q, scales):
        """q: int8 [N, K]; scales: float32 [N]."""
        self.format = "int8"
        self.group_size = None
        self.packed = q if isinstance(q, PackedB) else pack_b(q, transpose=True)
        self.scales = scales

    @property
    def shape(self):
        return self.packed.shape[::-1]

    @property
    def nbytes(self):
        """Bytes really stored: packed values, their column sums, and scales."""
        return self.packed.nbytes + self.scales.nbytes

    @property
    def bits_per_weight(self):
        """Bits stored for each weight, scales included."""
        return 8 * self.nbytes / max(self.packed.shape[0] * self.packed.shape[1], 1)

    def dequantize(self):
        """The weight that products see.

        Returns
        -------
        float32 ndarray
            [N, K], exactly ``q * scales[:, None]``.
        """
        return dequantize(self.packed.unpack().T, self.scales, axis=0)

    def to_state(self):
        """Named NumPy arrays that hold everything, independent of the ISA.

        Returns
        -------
        dict of str to ndarray
        """
        return {"format": np.array(self.format), "q": np.ascontiguousarray(self.packed.unpack().T),
                "scales": self.scales}

    @classmethod
    def from_state(cls, state):
        """The inverse of `to_state`.

        Raises
        ------
        ValueError
            The state is not complete or not consistent.
        """
        missing = {"format", "q", "scales"} - set(state)
        if missing:
            raise ValueError(f"state: lacks {', '.join(sorted(missing))}")
        if str(state["format"]) != "int8":
            raise ValueError(f"state: got format {state['format']}, takes 'int8'")
        q = np.asarray(state["q"])
        if q.dtype != np.int8 or q.ndim != 2:
            raise ValueError(f"state: got q of dtype {q.dtype} and shape {q.shape}, takes int8 [N, K]")
        scales = arguments.float_parameter(state["scales"], "state", (q.shape[0],))
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError("state: scales must be finite and greater than 0 everywhere")
        return cls(q, scales)

    def __reduce__(self):
        return QuantizedWeight, (self.packed, self.scales)

    def __repr__(self):
        n, k = self.shape
        return f"<QuantizedWeight {n}x{k} {self.format}, {self.bits_per_weight:.2f} bits per weight>"


def quantize_weight(w, format="int8", *, group_size=None, symmetric=True, **options):
    """Quantize the weight of a linear layer.

    Parameters
    ----------
    w : float32 array
        [N, K], as PyTorch stores it. Any strides.
    format : str, default "int8"
        "int8": symmetric in [-127, 127], one scale an output channel.
    group_size : int, optional
        Not available for "int8" yet.
    symmetric : bool, default True
        Asymmetric weights are not available yet.

    Returns
    -------
    QuantizedWeight

    Raises
    ------
    TypeError
        w is not float32, or an option is unknown.
    ValueError
        w is not 2-D, is not finite, or format is unknown.
    NotImplementedError
        The combination is not available yet.
    """
    w = arguments.float_array(w, "w")
    if w.ndim != 2:
        raise ValueError(f"w: got {w.ndim} dimension(s), takes [N, K]")
    if format not in FORMATS:
        raise ValueError(f"format: got {format!r}, takes one of {', '.join(FORMATS)}")
    if options:
        raise TypeError(f"{next(iter(options))}: is not an option of format {format!r}")
    if format != "int8":
        raise NotImplementedError(f"format: {format!r} is not implemented yet, takes 'int8'")
    if group_size is not None:
        raise NotImplementedError("group_size: not implemented yet, takes None")
    if not symmetric:
        raise NotImplementedError("symmetric: False is not implemented yet")
    if not np.isfinite(w).all():
        raise ValueError("w: contains NaN or infinity")
    scales = choose_qparams(w, "int8", axis=0).scale
    return QuantizedWeight(quantize(w, scales, axis=0), scales)


def linear(x, qw, bias=None, *, activations="int8", activation=None, out=None):
    """A linear layer with a quantized weight: ``x @ W.T + bias``.

    Parameters
    ----------
    x : float32 array
        [..., K], any strides.
    qw : QuantizedWeight
        [N, K].
    bias : float32 array, optional
        [N].
    activations : {"int8"}
        How x enters the product. "int8": each row quantized to int8 as it comes, symmetric, with its own scale.
    activation : None, "relu", "relu6" or (low, high), optional
        Clamp of the result, fused.
    out : float32 ndarray, optional
        [..., N]; may be strided, may not share memory with x.

    Returns
    -------
    float32 ndarray
        [..., N].

    Raises
    ------
    TypeError, ValueError, NotImplementedError
        As `int8_gemm`; x has NaN or infinities.

    Notes
    -----
    Exactly ``int8_gemm(q, W, qw.scales, row_scales=s, bias=bias)`` with ``q, s, _ = dynamic_quantize(rows, axis=0,
    dtype="int8", symmetric=True)``, so bit-identical on every processor.
    """
    if not isinstance(qw, QuantizedWeight):
        raise TypeError(f"qw: got {type(qw).__name__}, takes a QuantizedWeight (see quantize_weight)")
    x = arguments.float_array(x, "x")
    n, k = qw.shape
    if x.ndim == 0 or x.shape[-1] != k:
        raise ValueError(f"x: got shape {x.shape}, takes [..., {k}] for a weight of shape {qw.shape}")
    if activations == "float32":
        raise NotImplementedError("activations: 'float32' is not implemented yet, takes 'int8'")
    if activations != "int8":
        raise ValueError(f"activations: got {activations!r}, takes 'int8' or 'float32'")
    output = _core.Output(out, (*x.shape[:-1], n), np.float32, "x", x, bias)
    m = math.prod(x.shape[:-1])
    q, row_scales, _ = dynamic_quantize(x.reshape(m, k), axis=0, dtype="int8", symmetric=True)
    int8_gemm(q, qw.packed, qw.scales, row_scales=row_scales, bias=bias, activation=activation,
              out=output.buffer.reshape(m, n))
    return output.done()
