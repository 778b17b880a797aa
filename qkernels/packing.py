"""Sub-byte values, packed along the last axis: 8, 4 or 2 values a byte."""

import numpy as np

from . import _arguments as arguments
from . import _core

ORDERS = ("low_first", "high_first")


def _check_format(bits, order):
    if arguments.scalar(bits, "bits", 1, 4) == 3:
        raise ValueError(f"bits: got {bits!r}, takes 1, 2 or 4")
    if order not in ORDERS:
        raise ValueError(f"order: got {order!r}, takes one of {', '.join(ORDERS)}")


def pack(q, bits, *, order="low_first"):
    """Pack values of few bits into bytes, along the last axis.

    Parameters
    ----------
    q : int8 or uint8 array, at least 1-D
        int8 values in [-2**(bits-1), 2**(bits-1) - 1], or uint8 values in [0, 2**bits - 1]. Any strides (copied once
        when not C-contiguous).
    bits : {1, 2, 4}
        Bits a value.
    order : {"low_first", "high_first"}
        Whether the first value of a byte takes its lowest bits (ONNX's order) or its highest.

    Returns
    -------
    uint8 ndarray
        Of shape q.shape[:-1] + (ceil(n * bits / 8),); the last byte is filled up with zero bits.

    Raises
    ------
    TypeError
        q is not int8 or uint8.
    ValueError
        A value does not fit, or a parameter is not one of those named.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> qkernels.pack(np.array([1, 2, -1], np.int8), 4)
    array([33, 15], dtype=uint8)
    """
    q = arguments.byte_array(q, "q")
    _check_format(bits, order)
    if q.ndim == 0:
        raise ValueError("q: takes an array of at least one dimension")
    n = q.shape[-1]
    p = np.empty((*q.shape[:-1], -(-n * bits // 8)), np.uint8)
    _core.pack_bits(_core.contiguous(q), q.size // n if n else 0, n, bits, q.dtype == np.int8,
                    order == "high_first", p)
    return p


def unpack(p, bits, length, *, signed=True, order="low_first"):
    """Unpack what `pack` made.

    Parameters
    ----------
    p : uint8 array, at least 1-D
        Packed along the last axis. Any strides (copied once when not C-contiguous).
    bits : {1, 2, 4}
        Bits a value.
    length : int
        Values along the last axis; p.shape[-1] must be ceil(length * bits / 8).
    signed : bool, default True
        Whether the top bit of each value is its sign.
    order : {"low_first", "high_first"}
        As it was packed.

    Returns
    -------
    int8 or uint8 ndarray
        int8 when signed, of shape p.shape[:-1] + (length,).

    Raises
    ------
    TypeError
        p is not uint8.
    ValueError
        length does not match p, or a parameter is not one of those named.
    """
    p = arguments.byte_array(p, "p", unsigned_only=True)
    _check_format(bits, order)
    if p.ndim == 0:
        raise ValueError("p: takes an array of at least one dimension")
    length = arguments.scalar(length, "length", 0, 2**60)
    expected = -(-length * bits // 8)
    if p.shape[-1] != expected:
        raise ValueError(f"length: {length} values of {bits} bits take {expected} bytes, p has {p.shape[-1]}")
    storage = arguments.QTYPES["int8" if signed else "uint8"].storage
    q = _core.empty((*p.shape[:-1], length), storage, "p")
    _core.unpack_bits(_core.contiguous(p), q.size // length if length else 0, length, bits, signed,
                      order == "high_first", q)
    return q
