"""Products of matrices of signs, one bit each."""

import math

import numpy as np

from . import _arguments as arguments
from . import _core


def binary_gemm(a_bits, b_bits, k=None, *, out=None):
    """Multiply matrices whose elements are +1 and -1, exactly, by counting bits.

    ``acc[m, n] = sum over j < k of a[m, j] * b[n, j] = k - 2 * popcount(a[m] xor b[n])``

    Parameters
    ----------
    a_bits : uint8 array
        [..., M, ceil(k / 8)]: rows of bits, 1 for +1 and 0 for -1, packed along k from the lowest bit of each byte on,
        as `pack` with bits=1 and order="low_first" leaves them. Any strides (copied once when not C-contiguous).
    b_bits : uint8 array
        [N, ceil(k / 8)], likewise: a row for each output channel.
    k : int, optional
        How many bits of a row count; those past k are ignored, whatever they are. By default all, 8 a byte.
    out : int32 ndarray, optional
        [..., M, N], where the result goes. It may be strided, and may not overlap an input.

    Returns
    -------
    int32 ndarray
        [..., M, N]; the same on every processor, and equal to `qkernels.ref.binary_gemm`.

    Raises
    ------
    TypeError
        An operand is not uint8, k is no integer, or out has another dtype than int32.
    ValueError
        Shapes do not match, k is not of as many bytes as the rows have or exceeds 2**31 - 1, or out has another shape,
        is read-only or overlaps an input.

    Notes
    -----
    The product of XNOR-Net (Rastegari et al., 2016). b_bits is packed anew in each call, which takes about as long as
    the product with a few rows of a_bits.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> a = np.array([[1, -1, 1], [-1, -1, -1]])
    >>> b = np.array([[1, 1, 1]])
    >>> bits = [qkernels.pack((x > 0).astype(np.uint8), 1) for x in (a, b)]
    >>> qkernels.binary_gemm(*bits, k=3)
    array([[ 1],
           [-3]], dtype=int32)
    """
    a = arguments.byte_array(a_bits, "a_bits", unsigned_only=True)
    b = arguments.byte_array(b_bits, "b_bits", unsigned_only=True)
    if a.ndim < 2:
        raise ValueError(f"a_bits: got {a.ndim} dimension(s), takes [..., M, ceil(k / 8)]")
    if b.ndim != 2:
        raise ValueError(f"b_bits: got {b.ndim} dimension(s), takes [N, ceil(k / 8)]")
    row_bytes = a.shape[-1]
    if b.shape[1] != row_bytes:
        raise ValueError(f"b_bits: got rows of {b.shape[1]} bytes (shape {b.shape}), a_bits has rows of {row_bytes} "
                         f"(shape {a.shape})")
    k = arguments.scalar(8 * row_bytes if k is None else k, "k", 0, 2**31 - 1)
    if -(-k // 8) != row_bytes:
        raise ValueError(f"k: {k} bits take {-(-k // 8)} bytes, the rows of a_bits and b_bits have {row_bytes}")
    output = _core.Output(out, (*a.shape[:-1], b.shape[0]), np.int32, "a_bits", a, b)
    rows = _core.contiguous(a).reshape(math.prod(a.shape[:-1]), row_bytes)
    _core.binary_gemm(rows, _core.contiguous(b), k, output.buffer)
    return output.done()
