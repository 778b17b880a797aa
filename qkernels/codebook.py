"""Codebooks: sets of levels, the quantizers that round to the nearest of them, and the ways to choose them."""

import numpy as np

from . import _arguments as arguments
from . import _core
from .kmeans import kmeans
from .lloyd_max import DENSITIES, lloyd_max

MOST_LEVELS = 2**16
# W. Dettmers's NormalFloat: quantiles of the normal distribution, scaled to [-1, 1], as bitsandbytes stores them.
NF4_LEVELS = np.float32([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip



class Codebook:
    """A sorted set of levels: a value is stored as the index of the nearest one.

    Parameters
    ----------
    levels : array of float
        1-D, 1 to 65536 finite numbers, which become float32, are sorted, and kept once each.

    Attributes
    ----------
    levels : float32 ndarray
        Strictly ascending, read-only.
    step : float or None
        The distance between neighbors in a codebook made by `uniform`.

    Raises
    ------
    TypeError
        The levels are not numbers.
    ValueError
        There are none or too many, or one is not finite.

    Examples
    --------
    >>> import numpy as np, qkernels
    >>> book = qkernels.Codebook([-1, 0, 4])
    >>> codes = book.encode(np.float32([-7, -0.4, 1.9, 2.1]))
    >>> codes, book.decode(codes)
    (array([0, 1, 1, 2], dtype=uint8), array([-1.,  0.,  0.,  4.], dtype=float32))
    """

    __slots__ = ("levels", "step", "_bounds")

    @_core.in_default_floating_mode
    def __init__(self, levels):
        levels = arguments.parameter(levels, "levels")
        if levels.dtype.kind not in "iuf":
            raise TypeError(f"levels: got dtype {levels.dtype}, takes numbers")
        if levels.ndim != 1 or not 1 <= levels.size <= MOST_LEVELS:
            raise ValueError(f"levels: got shape {levels.shape}, takes 1 to {MOST_LEVELS} numbers")
        with np.errstate(over="ignore"):
            levels = np.unique(levels.astype(np.float32))
        if not np.isfinite(levels).all():
            raise ValueError("levels: must be finite in float32 everywhere")
        levels.flags.writeable = False
        self.levels, self.step, self._bounds = levels, None, _bounds(levels)

    def __len__(self):
        return len(self.levels)

    def __repr__(self):
        return f"<Codebook of {len(self)} levels from {self.levels[0]:g} to {self.levels[-1]:g}>"

    def __reduce__(self):
        return _restore, (self.levels, self.step)

    @property
    def dtype(self):
        """The type of codes: uint8 for up to 256 levels, else uint16."""
        return np.dtype(np.uint8 if len(self) <= 256 else np.uint16)

    @_core.in_default_floating_mode
    def encode(self, x, out=None):
        """The index of the level nearest to each value, of two equally near ones the lower.

        Parameters
        ----------
        x : float32 array
            Any shape and strides.
        out : uint8 or uint16 ndarray, optional
            Of x's shape and of `dtype`; may be strided, may not share memory with x.

        Returns
        -------
        uint8 or uint16 ndarray
            Of x's shape: uint8 for up to 256 levels, else uint16.

        Raises
        ------
        TypeError
            x is not float32, or out is not of `dtype`.
        ValueError
            x has NaN, or out does not fit.

        Notes
        -----
        Exact: distances are compared as real numbers, not as rounded ones. Infinities take the outermost levels.
        """
        x = arguments.float_array(x, "x")
        if np.isnan(x).any():
            raise ValueError("x: contains NaN")
        output = _core.Output(out, x.shape, self.dtype, "x", x)
        output.buffer[...] = np.searchsorted(self._bounds, x)
        return output.done()

    def decode(self, codes):
        """The levels of codes.

        Parameters
        ----------
        codes : integer array
            Any shape and strides, each less than the number of levels.

        Returns
        -------
        float32 ndarray
            Of the shape of codes.

        Raises
        ------
        TypeError
            The codes are not integers.
        ValueError
            A code is out of range.
        """
        codes = arguments.array(codes, "codes")
        if codes.dtype.kind not in "iu":
            raise TypeError(f"codes: got dtype {codes.dtype}, takes integers")
        if codes.size and (codes.min() < 0 or codes.max() >= len(self)):
            raise ValueError(f"codes: must lie in 0 to {len(self) - 1} everywhere")
        return self.levels[codes]

    @classmethod
    @_core.in_default_floating_mode
    def uniform(cls, low, high, levels):
        """A uniform scalar quantizer: levels evenly spaced from low to high, the centres of equal buckets.

        Parameters
        ----------
        low, high : float
            The lowest and the highest level; values beyond them are clipped.
        levels : int
            2 to 65536.

        Returns
        -------
        Codebook
            With `step` = (high - low) / (levels - 1), the width of a bucket.

        Raises
        ------
        ValueError
            low is not below high, or the levels are not that many different float32.

        Examples
        --------
        >>> import qkernels
        >>> qkernels.Codebook.uniform(-10, 10, 256).step == 20 / 255
        True
        """
        low, high = _finite(low, "low"), _finite(high, "high")
        count = arguments.scalar(levels, "levels", 2, MOST_LEVELS)
        if not low < high:
            raise ValueError(f"low: got {low}, takes less than high, {high}")
        book = cls(np.linspace(low, high, count))
        if len(book) != count:
            raise ValueError(f"levels: float32 has no {count} different ones from {low} to {high}")
        book.step = (high - low) / (count - 1)
        return book

    @classmethod
    @_core.in_default_floating_mode
    def lloyd_max(cls, density="normal", levels=16, support=None):
        """The levels of the least mean squared error for a density [1]_, [2]_.

        Parameters
        ----------
        density : {"normal", "laplace", "uniform"} or callable
            The named ones have mean 0 and variance 1. A callable takes a float64 array and gives the density at each
            value up to a factor; it is to be log-concave, or else the levels found may not be the best ones.
        levels : int, default 16
            1 to 4096.
        support : (float, float), optional
            For a callable, and needed there: the range that holds all of the density.

        Returns
        -------
        Codebook

        Raises
        ------
        TypeError
            density is neither a name nor callable.
        ValueError
            A parameter is not one of those named, or the density is negative, not finite, or 0 everywhere.

        Notes
        -----
        Lloyd's fixed point: each level moves to the centroid of its bucket, whose ends are the middles between levels,
        until none moves by more than 1e-10 of the support. It starts from the quantiles of the density's cube root, the
        best levels if there are many. Integrals are by Gauss and Legendre in 16384 panels of the support.

        References
        ----------
        .. [1] S. P. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982.
        .. [2] J. Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory 6, 1960.

        Examples
        --------
        >>> import qkernels
        >>> qkernels.Codebook.lloyd_max("normal", 4).levels.round(4)
        array([-1.5104, -0.4528,  0.4528,  1.5104], dtype=float32)
        """
        count = arguments.scalar(levels, "levels", 1, 4096)
        if isinstance(density, str):
            if density not in DENSITIES:
                raise ValueError(f"density: got {density!r}, takes one of {', '.join(DENSITIES)} or a function")
            if support is not None:
                raise ValueError("support: only applies to a density that is a function")
            density, support = DENSITIES[density]
        elif not callable(density):
            raise TypeError(f"density: got {type(density).__name__}, takes one of {', '.join(DENSITIES)} or a function")
        low, high = _checked_support(support)
        return cls(lloyd_max(density, low, high, count))

    @classmethod
    @_core.in_default_floating_mode
    def kmeans(cls, x, levels, weights=None):
        """The levels of the least (weighted) squared error for given values: optimal 1-D k-means [1]_.

        Parameters
        ----------
        x : float32 array
            Finite values, any shape, at least one.
        levels : int
            At most so many levels, 1 to 4096: as many as there are different values, if that is less.
        weights : float array, optional
            The importance of each value, of x's shape: finite, none negative, not all 0.

        Returns
        -------
        Codebook

        Raises
        ------
        TypeError
            x is not float32, or the weights are not floats.
        ValueError
            x has no values, NaN or infinities, or a parameter is not one of those named.

        Notes
        -----
        By dynamic programming over the sorted different values; the cut of a prefix never lies before that of a shorter
        one, so that each level takes O(n log n). The optimum for up to 4096 different values. Beyond, clusters are
        divided at about 4096 places, half of them evenly spaced in the range and half in the number of values, and on
        both sides of values of great weight; Lloyd's iterations move the cuts over all values until they rest. Errors
        of clusters are sums without cancellation, right for weights of any range. The same on every processor.

        References
        ----------
        .. [1] A. Grønlund, K. G. Larsen, A. Mathiasen, J. S. Nielsen, S. Schneider, M. Song, "Fast exact k-means,
           k-medians and Bregman divergence clustering in 1D", 2017, arXiv:1701.07204.

        Examples
        --------
        >>> import numpy as np, qkernels
        >>> qkernels.Codebook.kmeans(np.float32([1, 2, 10, 11, 12]), 2).levels
        array([ 1.5, 11. ], dtype=float32)
        """
        x = arguments.float_array(x, "x")
        count = arguments.scalar(levels, "levels", 1, 4096)
        if not x.size:
            raise ValueError(f"x: got shape {x.shape}, takes at least one value")
        if not np.isfinite(x).all():
            raise ValueError("x: contains NaN or infinity")
        if weights is not None:
            weights = checked_weights(weights, "weights", x.shape)
        return cls(kmeans(x.ravel(), count, None if weights is None else weights.ravel()))

    @classmethod
    def nf4(cls):
        """The 16 levels of 4-bit NormalFloat, from -1 to 1, as bitsandbytes has them (QLoRA, arXiv:2305.14314).

        Returns
        -------
        Codebook
        """
        return cls(NF4_LEVELS)

    @classmethod
    def logarithmic(cls, bits):
        """Powers of two in both signs, and 0 (D. Miyashita, E. H. Lee, B. Murmann, arXiv:1603.01025).

        Parameters
        ----------
        bits : int
            2 to 8: one for the sign, the others for the exponent, of which one value means 0.

        Returns
        -------
        Codebook
            0 and +-1, 2, 4, ... 2**(2**(bits - 1) - 2): for 4 bits up to 64.

        Raises
        ------
        ValueError
            bits is out of range.

        Examples
        --------
        >>> import qkernels
        >>> qkernels.Codebook.logarithmic(3).levels
        array([-4., -2., -1.,  0.,  1.,  2.,  4.], dtype=float32)
        """
        powers = np.ldexp(1.0, np.arange(2 ** (arguments.scalar(bits, "bits", 2, 8) - 1) - 1))
        return cls([*-powers, 0.0, *powers])


def checked_weights(x, name, shape):
    """Importances as float64 of this shape, from those or one row of them, relative to the greatest or twice that."""
    x = arguments.parameter(x, name)
    if x.dtype.kind != "f":
        raise TypeError(f"{name}: got dtype {x.dtype}, takes floating-point numbers")
    if x.shape not in (shape, shape[-1:]):
        raise ValueError(f"{name}: got shape {x.shape}, takes {shape}" + f" or {shape[-1:]}" * (len(shape) > 1))
    with np.errstate(over="ignore"):  # of a wider type: an infinity is refused with the other bad values
        x = x.astype(np.float64)
    if not np.isfinite(x).all() or (x < 0).any() or (x.size and not x.any()):
        raise ValueError(f"{name}: must be finite and >= 0 everywhere, and > 0 somewhere")
    x = np.ldexp(x, -np.frexp(x.max(initial=0))[1])  # at most 1, so that no sum overflows; no digit changes
    return np.broadcast_to(x, shape)


def _restore(levels, step):
    book = Codebook(levels)
    book.step = step
    return book


def _finite(x, name):
    try:
        value = float(x)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {x!r}, takes one number") from None
    except OverflowError:
        value = np.inf
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise ValueError(f"{name}: got {x!r}, takes a finite number within float32's range")
    return value


def _checked_support(support):
    try:
        low, high = support
    except (TypeError, ValueError):
        raise ValueError(f"support: got {support!r}, takes the (low, high) of a density that is a function") from None
    low, high = _finite(low, "support"), _finite(high, "support")
    if not low < high:
        raise ValueError(f"support: got ({low}, {high}), takes low < high")
    return low, high


def _bounds(levels):
    """The greatest float32 that is nearer to each level than to the next, or in the middle."""
    # The sum of two levels is s + rest exactly (Knuth's TwoSum); t is not above their middle if 2 t <= s + rest.
    low, high = levels[:-1].astype(np.float64), levels[1:].astype(np.float64)
    s = low + high
    virtual = s - low
    rest = (low - (s - virtual)) + (high - virtual)
    t = (s / 2).astype(np.float32)
    is_above = (2 * t.astype(np.float64) > s) | ((2 * t.astype(np.float64) == s) & (rest < 0))
    return np.where(is_above, np.nextafter(t, np.float32(-np.inf)), t)
