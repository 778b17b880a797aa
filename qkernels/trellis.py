"""Trellis-coded weights: levels, the encoder, the decoder.

A weight takes `bits` bits of a stream, and its level is the one whose number is the window of bits that starts there
(a bitshift trellis: Mao, Sun et al., QTIP, 2024). A word of T weights is a ring of bits:

    stream     | k bits of weight 0 | k bits of weight 1 | ... | k bits of weight T - 1 |  and again from the start
    weight p   = level[ `window` bits from bit k * p on, the first the lowest ] * scale

The fast code has windows of 6 bits, trained tables, and words of 32 weights, whose stream visits weights 0, 4, 8, ...
28, 1, 5, ...; the fine code has windows of 12 to 16 bits, computed levels, and words of a block of the packed weight,
in order. """

import numpy as np

from . import _core
from .groups import group_count, row_sums, stored
from .progress import progress
from .rounding import upper_factor

FAST_WINDOW = 6
FAST_WORD = 32
SLAB = {True: 2**20, False: 2**17}  # weights that are encoded before the keyboard is looked at: fast code, fine code
DECODED = 2**20  # weights that are decoded at a time

# Found by a search over tables for samples of N(0, 1) times the rms. The rms that their users scale groups to.
FAST_LEVELS = {
    2: (
        14, -7, -25, 51, 31, 83, -117, -61, -38, -10, 35, 11, -54, -18, 21, 64, 70, 33, 5, -40, -37, 31, -1,
        103, -2, -37, -85, 44, -18, 46, -67, 11, -35, -70, 54, 6, 0, -58, 37, -18, 57, 17, -14, 116, 29, 81,
        -16, -58, -3, -30, -56, 32, -96, -4, -39, 32, 17, 59, -46, -14, -84, 14, 73, -21,
    ),
    3: (
        46, 7, 97, -68, 21, -31, -12, 65, 14, 51, -122, -41, -7, 31, -60, -21, -10, -53, 4, -32, -83, 52, 121,
        26, 76, -11, 52, 33, 3, 14, -31, -54, 27, -29, -71, 90, 63, -47, 6, 40, -47, -87, 22, 12, -28, -16, 41,
        -2, 2, 76, -38, -16, 41, -68, 21, -99, -26, 32, -19, -5, -51, -2, 63, 14,
    ),
    4: (
        16, -19, 9, 43, 34, -29, 26, 103, -40, -93, -9, 0, -60, 126, -46, 58, -49, 12, -21, -7, 74, -127, 37,
        -37, 54, -12, -62, 23, -78, -28, 3, -106, 25, -6, -33, -16, 6, 48, -55, 15, -24, -42, 63, 81, 40, 32, 0,
        -71, -17, 2, 17, 33, -5, 69, 49, -25, 90, 22, -13, 9, -34, -67, -82, -50,
    ),
}
FAST_RMS = {2: 46.0, 3: 42.0, 4: 40.0}
FINE_RMS = {2: 36.0, 3: 33.8, 4: 32.5}  # where the squared error for N(0, 1) was least, with windows of 13 bits


def levels(bits, window=FAST_WINDOW):
    """The levels of a code.

    Parameters
    ----------
    bits : int
        Of a weight: 2, 3 or 4.
    window : int
        6 for the fast code, 12 to 16 for the fine one.

    Returns
    -------
    int8 ndarray
        [2**window], in [-127, 127].

    Notes
    -----
    The fine code adds four fields of 6 bits of ``state * 0xCBAC1FED mod 2**32``, and subtracts 126: multiplier and mask
    are those published for the KT formats of ik_llama.cpp.

    Examples
    --------
    >>> from qkernels import trellis
    >>> trellis.levels(2, 12)[:4]
    array([-126,    5,   10,  -49], dtype=int8)
    """
    if window == FAST_WINDOW:
        return np.array(FAST_LEVELS[bits], np.int8)
    hashed = np.arange(2**window, dtype=np.uint32) * np.uint32(0xCBAC1FED) & np.uint32(0x3F3F3F3F)
    return (hashed.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int32) - 126).astype(np.int8)


class Code:
    """One code for weights of a width and group size: how they lie in words.

    Attributes
    ----------
    width : int
        k, filled up to whole blocks.
    word : int
        Weights in a word.
    group : int
        Weights in a group, of the filled width.
    """

    def __init__(self, bits, window, k, group_size):
        block = _core.weight_block(k, group_size)
        self.bits, self.window, self.k, self.group_size = bits, window, k, group_size
        self.is_fast = window == FAST_WINDOW
        self.levels = levels(bits, window)
        self.rms = (FAST_RMS if self.is_fast else FINE_RMS)[bits]
        self.width = -(-k // block) * block
        self.word = FAST_WORD if self.is_fast else block
        self.group = self.width if group_size is None or group_size >= k else group_size

    @property
    def groups(self):
        return group_count(self.k, self.group_size)

    def group_slices(self):
        """Where the groups lie in a row; the last one may be short."""
        return [slice(at, min(at + self.group, self.width)) for at in range(0, self.width, self.group or 1)]

    def encode(self, x):
        """x float32 [N, a multiple of a word] in level units to words uint8 [N, bytes]."""
        words = x.reshape(-1, self.word)
        if self.is_fast:
            words = words.reshape(-1, 8, 4).transpose(0, 2, 1).reshape(words.shape)
        stream = _core.encode_trellis(_core.contiguous(words), self.levels, self.bits)
        return stream.reshape(len(x), x.shape[1] * self.bits // 8)

    def decode(self, stream):
        """Words uint8 [N, bytes] to levels int8 [N, weights]."""
        eight = stream.reshape(-1, self.bits).astype(np.uint32)  # weights, in `bits` bytes
        packed = sum(eight[:, i] << np.uint32(8 * i) for i in range(self.bits))
        symbols = packed[:, None] >> np.arange(0, 8 * self.bits, self.bits, dtype=np.uint32)
        symbols = (symbols & np.uint32(2**self.bits - 1)).reshape(-1, self.word)
        more = -(-self.window // self.bits) - 1
        ring = np.concatenate([symbols, symbols[:, :more]], axis=1)
        state = sum(ring[:, i : i + self.word] << np.uint32(self.bits * i) for i in range(more + 1))
        words = self.levels[state & np.uint32(2**self.window - 1)]
        if self.is_fast:
            words = words.reshape(-1, 4, 8).transpose(0, 2, 1)
        return words.reshape(len(stream), stream.shape[1] * 8 // self.bits)


def decode(stream, bits, window, k, group_size=None):
    """The levels of encoded weights.

    Parameters
    ----------
    stream : uint8 array
        [N, bytes], as `encode` returns it.
    bits, window : int
        As in `levels`.
    k : int
        Weights in a row.
    group_size : int, optional
        As it was encoded with.

    Returns
    -------
    int8 ndarray
        [N, k].
    """
    code = Code(bits, window, k, group_size)
    out = np.empty((len(stream), k), np.int8)
    step = max(DECODED // max(code.width, 1), 1)
    for start in range(0, len(stream) if k else 0, step):
        rows = slice(start, start + step)
        out[rows] = code.decode(stream[rows])[:, :k]
    return out


@_core.in_default_floating_mode
def encode(w, bits, window=FAST_WINDOW, group_size=None, scale_dtype="float16", hessian=None):
    """Encode a weight, with a progress bar on a terminal if it takes long (and tqdm is there).

    Parameters
    ----------
    w : float32 array
        [N, K], finite.
    bits, window : int
        As in `levels`.
    group_size : int, optional
        Weights along K that share a scale, a multiple of 32; None for one scale a row.
    scale_dtype : str
        "float16" or "float32".
    hessian : float array, optional
        [K, K], the mean of x x^T: the words of a row are encoded one after another, each with the errors of those
        before it fed back, so that ``trace(E @ hessian @ E.T)`` of the error E becomes small.

    Returns
    -------
    stream : uint8 ndarray
        [N, bytes].
    scales : ndarray
        [N, G], of scale_dtype, > 0.

    Raises
    ------
    ValueError
        float16 cannot hold a scale, or the hessian does not fit w or is not positive semidefinite.

    Notes
    -----
    Without a hessian the result is the same bytes on every processor. With one it depends on the last bits of NumPy's
    linear algebra. Feedback: LDLQ in blocks (Chee et al., QuIP, 2023; Tseng et al., QuIP#, 2024).

    Examples
    --------
    >>> import numpy as np
    >>> from qkernels import trellis
    >>> w = np.random.default_rng(0).normal(size=(8, 512)).astype(np.float32)
    >>> stream, scales = trellis.encode(w, 2)
    >>> stream.shape, scales.shape
    ((8, 128), (8, 1))
    >>> error = trellis.decode(stream, 2, 6, 512) * scales.astype(np.float32) - w
    >>> bool(np.square(error).mean() < 0.1)
    True
    """
    slabs = encode_slabs(w, bits, window, group_size, scale_dtype, hessian)
    slabs = list(progress(slabs, len(w), "trellis", "row", lambda slab: len(slab[0])))
    return np.concatenate([s for s, _ in slabs]), np.concatenate([s for _, s in slabs])


def encode_slabs(w, bits, window=FAST_WINDOW, group_size=None, scale_dtype="float16", hessian=None, start=0):
    """The parts of what `encode` returns, some rows each, from row `start` on.

    Rows do not depend on each other, so what was yielded before an interruption stays good: go on with the first row
    that is missing.
    """
    code = Code(bits, window, w.shape[1], group_size)
    feedback = None if hessian is None else Feedback(np.asarray(hessian), code)
    step = max(SLAB[code.is_fast] // max(code.width, 1), 1)
    for at in range(start, max(len(w), start + 1), step):  # no rows are a slab, too
        yield _encode_rows(w[at : at + step], code, scale_dtype, feedback)


def _encode_rows(w, code, scale_dtype, feedback):
    """Words and scales of some rows."""
    weight = np.zeros((len(w), code.width), np.float32)
    weight[:, : code.k] = w
    chosen = np.zeros(weight.shape, np.int8)
    error = np.zeros(weight.shape, np.float32)
    stream = np.empty((len(w), code.width * code.bits // 8), np.uint8)
    scales = np.ones((len(w), code.groups), scale_dtype)
    for g, group in enumerate(code.group_slices()):
        real = slice(group.start, min(group.stop, code.k))
        scale = _first_scales(weight[:, real], code.rms, scale_dtype)
        step = code.word if feedback is not None else group.stop - group.start
        for start in range(group.start, group.stop, step):
            part = slice(start, start + step)
            target = weight[:, part]
            if feedback is not None:
                target = target + feedback.of(error[:, :start], part)
            words = code.encode(_in_levels(target, scale))
            stream[:, start * code.bits // 8 : (start + step) * code.bits // 8] = words
            chosen[:, part] = code.decode(words)
            error[:, part] = _error(weight[:, part], chosen[:, part], scale)
        fit = weight[:, real], chosen[:, real]
        if feedback is not None:
            fit = feedback.weighed(error[:, : group.start], *fit, real)
        scales[:, g] = scale = _refitted(*fit, scale)
        error[:, group] = _error(weight[:, group], chosen[:, group], scale)
    return stream, scales


def _first_scales(weight, rms, dtype):
    """With which the rows have the rms that the code is made for."""
    return stored(np.sqrt(row_sums(np.square(weight, dtype=np.float64)) / weight.shape[1]) / rms, dtype)


def _refitted(target, chosen, scale):
    """Scales with less squared error of target - chosen * scale, by least squares; those given where these are as
    good."""
    product = row_sums(target.astype(np.float64) * chosen)
    norm = row_sums(np.square(chosen, dtype=np.float64))
    fitted = stored(np.maximum(product, 0) / np.maximum(norm, np.finfo(np.float64).tiny), scale.dtype)

    def squared_error(scale):
        scale = scale.astype(np.float64)
        return scale * (norm * scale - 2 * product)  # less the square of target, which both have

    return np.where(squared_error(fitted) < squared_error(scale), fitted, scale)


def _in_levels(target, scale):
    """target / scale; a group of zeros has next to no scale, and errors fed back to it may lie beyond all levels."""
    with np.errstate(over="ignore"):
        return np.clip(target / scale.astype(np.float32)[:, None], np.float32(-(2**20)), np.float32(2**20))


def _error(weight, chosen, scale):
    return weight - chosen * scale.astype(np.float32)[:, None]


class Feedback:
    """What of the errors of earlier columns is added to later ones.

    With hessian = V V.T, V upper triangular, the errors E of some rows cost the sum of the squares of E V, in which a
    column depends on no later one. With D, the blocks of a word on V's diagonal, and V = (1 + U) D, errors that are fed
    back by U cost what those of the words by themselves cost: the sum of the squares of (error of a word + fed back) D.
    """

    __slots__ = ("factor", "shares")

    def __init__(self, hessian, code):
        if hessian.shape != (code.k, code.k):
            raise ValueError(f"hessian: got shape {hessian.shape}, takes {(code.k, code.k)}")
        self.factor = np.eye(code.width)  # columns that only fill up do not matter to others
        self.factor[: code.k, : code.k] = upper_factor(hessian)
        self.shares = np.zeros(self.factor.shape, np.float32)
        for start in range(code.word, code.width, code.word):
            part = slice(start, start + code.word)
            of_word = self.factor[part, part]
            self.shares[:start, part] = np.linalg.solve(of_word.T, self.factor[:start, part].T).T

    def of(self, error, part):
        """The share of earlier errors for the columns of a word."""
        return error @ self.shares[: part.start, part]

    def weighed(self, error, weight, chosen, group):
        """Of the columns of a group: ``(weight - scale * chosen) V`` and what earlier errors add, without and with the
        scale."""
        v = self.factor[group, group]
        return weight @ v + error @ self.factor[: group.start, group], chosen @ v
