"""The randomized Hadamard transform, which spreads outliers of a row over all its values."""

import numpy as np

from . import _arguments as arguments
from . import _core

FACTOR = 64  # of the Hadamard matrices of which larger ones are Kronecker products, for matrix products of good size


def hadamard(x, *, seed=None, inverse=False, out=None):
    """Rotate the rows of x by random signs and a Walsh-Hadamard transform, or back.

    Each row is cut into blocks of n values, n being the largest power of two that divides K (128 of 384, 512 of 1536),
    and each block is multiplied by the orthonormal matrix H, ``H[i, j] = (-1)**popcount(i & j) / sqrt(n)``:
    ``scipy.linalg.hadamard(n) / sqrt(n)``. With a seed, value i of a row is multiplied by a random sign s[i] first:
    ``y = H (s * x)``, and with `inverse` ``y = s * (H x)``. As H is its own inverse, that gives x back, up to rounding;
    and products with a rotated weight are those of the plain one: ``hadamard(x) @ hadamard(w).T = x @ w.T``.

    Parameters
    ----------
    x : float32 array [..., K], at least 1-D
        Any strides (copied once when not C-contiguous).
    seed : int in [0, 2**64), optional
        Of the signs, the same for each row: s[i] is -1 where bit i % 64 of output number i // 64 of splitmix64 is set,
        the generator starting at the state `seed`. None means no signs.
    inverse : bool, default False
        Undo what the same seed did.
    out : float32 ndarray of the shape of x, optional
        Takes the result; may be strided, may not share memory with x.

    Returns
    -------
    float32 ndarray [..., K]
        `out` if given. C-contiguous otherwise.

    Raises
    ------
    TypeError
        x is not float32, or seed is not an integer.
    ValueError
        x is 0-D, seed is out of range, or out does not fit.

    Notes
    -----
    Bit-identical on every ISA and equal to `qkernels.ref.hadamard`: each value is multiplied by its sign and
    ``float32(1 / sqrt(n))``; then, for d = 1, 2, 4, ... below n, values i and i + d, wherever ``i & d == 0``, become
    their sum and their difference, each rounded to float32. With `inverse` the multiplication comes last. A NaN or an
    infinity makes its block one of NaNs and infinities (which NaN is not specified). An odd K has blocks of one value:
    signs alone.

    The rows of a rotated weight are close to normally distributed, which is what codebooks are made for: the
    incoherence processing of QuIP# [1]_, the rotation of QuaRot [2]_. Blocks need not be mixed among themselves: the 36
    encoder matrices of MiniLM (K = 384 and 1536), quantized to four levels that suit the normal distribution, with one
    scale a row, have a signal 8.8 dB above the error as they are and 9.3 dB rotated, as normally distributed numbers
    do.

    References
    ----------
    .. [1] Tseng et al., "QuIP#: Even Better LLM Quantization with Hadamard Incoherence and Lattice Codebooks", 2024.
    .. [2] Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> qkernels.hadamard(np.float32([8, 0, 0, 0]))
    array([4., 4., 4., 4.], dtype=float32)
    >>> qkernels.hadamard(np.float32([8, 0, 4, 0]), seed=1)
    array([-2., -2., -6., -6.], dtype=float32)
    >>> qkernels.hadamard(np.float32([-2, -2, -6, -6]), seed=1, inverse=True)
    array([8., 0., 4., 0.], dtype=float32)
    """
    x = arguments.float_array(x, "x")
    if x.ndim == 0:
        raise ValueError("x: takes an array of at least one dimension")
    if seed is not None:
        seed = arguments.scalar(seed, "seed", 0, 2**64 - 1)
    result = _core.Output(out, x.shape, np.float32, "x", x)
    _core.hadamard(_core.contiguous(x), x.shape[-1], seed, bool(inverse), result.buffer)
    return result.done()


def rotated_moments(moments, seed):
    """The mean of ``y y^T`` for rows ``y = hadamard(x, seed=seed)``, from that of ``x x^T``.

    Parameters
    ----------
    moments : float64 array
        [K, K], symmetric.
    seed : int
        As `hadamard` takes it.

    Returns
    -------
    float64 ndarray
        [K, K], symmetric to the last bit. In float64, because a column of large inputs, which a rotation spreads over
        all others, leaves no digits of theirs in float32.
    """
    k = len(moments)
    block = max(k & -k, 1)
    first = np.zeros(k, np.float32)
    first[::block] = 1
    signs = np.sign(hadamard(first, seed=seed, inverse=True))  # H makes 1, 0, 0, ... equal values
    rotated = moments * np.multiply.outer(signs, signs).astype(np.float64)
    for _ in range(2):  # rows, then columns
        stride = 1
        while stride < block:
            size = min(FACTOR, block // stride)
            small = np.sign(hadamard(np.eye(size, dtype=np.float32))) / np.sqrt(size)
            rotated = (small @ rotated.reshape(-1, size, stride * k)).reshape(k, k)
            stride *= size
        rotated = _core.contiguous(rotated.T)
    return (rotated + rotated.T) / 2
