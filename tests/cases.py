"""Inputs and comparisons that the tests share.

The numbers come from a counter mixed with integer arithmetic (splitmix64), so that they are the
same under every NumPy version and on every machine. Golden vectors and hashes rely on that.
"""

import functools
import hashlib
import pickle
import re

import numpy as np

LIMITS = {np.int8: (-128, 127), np.uint8: (0, 255)}
SIGNS = [(np.int8, np.int8), (np.int8, np.uint8), (np.uint8, np.int8), (np.uint8, np.uint8)]


@functools.lru_cache(2048)  # each ISA wants the same ones
def words(seed, count):
    """`count` well mixed uint64 words."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = z + np.full(count, seed * 0xD1342543DE82EF95 % 2**64, np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    z.flags.writeable = False
    return z


def size_of(shape):
    size = 1
    for n in shape:
        size *= n
    return size


def ints(seed, shape, low, high, dtype=np.int64):
    """Integers in [low, high]."""
    span = np.uint64(high - low + 1)
    return (
        ((words(seed, size_of(shape)) % span).astype(np.int64) + low).astype(dtype).reshape(shape)
    )


def bytes8(seed, shape, dtype):
    """Values over the whole range of int8 or uint8, with more than their share of extremes."""
    low, high = LIMITS[dtype]
    values = ints(seed, shape, low, high)
    kind = ints(seed + 7919, shape, 0, 15)
    return np.where(kind == 0, low, np.where(kind == 1, high, values)).astype(dtype)


def floats(seed, shape, size=1.0):
    """float32 in about [-size, size], with exact zeros of both signs among them."""
    values = (ints(seed, shape, -(2**23), 2**23) * 2.0**-23).astype(np.float32) * np.float32(size)
    kind = ints(seed + 104729, shape, 0, 31)
    return np.where(kind == 0, np.float32(0), np.where(kind == 1, np.float32(-0.0), values))


def scales(seed, shape, size=0.01):
    """Positive float32 scales between size / 8 and size * 9 / 8."""
    return ((ints(seed, shape, 0, 2**20) * 2.0**-20 + 0.125) * size).astype(np.float32)


def extremes(shape, dtype):
    """Named arrays: all low, all high, and the two alternating along the last axis."""
    low, high = LIMITS[dtype]
    flip = np.where(np.arange(shape[-1]) % 2, low, high).astype(dtype)
    return {
        "low": np.full(shape, low, dtype),
        "high": np.full(shape, high, dtype),
        "alternating": np.ascontiguousarray(np.broadcast_to(flip, shape)),
    }


def assert_same(got, want, what=""):
    """Equal type, dtype, shape and bytes: -0.0 is not 0.0 here."""
    assert isinstance(got, (np.ndarray, np.generic)), (what, type(got))
    assert got.dtype == want.dtype, (what, got.dtype, want.dtype)
    assert got.shape == want.shape, (what, got.shape, want.shape)
    if got.dtype == np.float32:
        np.testing.assert_array_equal(got, want, err_msg=str(what))  # readable first
        got = np.ascontiguousarray(got).view(np.int32)
        want = np.ascontiguousarray(want).view(np.int32)
    np.testing.assert_array_equal(got, want, err_msg=str(what))


_answers = {}


def oracle(function, *args, **options):
    """What a function of qkernels.ref gives; asked once, since each ISA wants the same answer."""
    key = hashlib.sha1(pickle.dumps((function.__name__, args, options))).digest()
    if key not in _answers:
        _answers[key] = function(*args, **options)
    return _answers[key]


def strided(x):
    """Arrays equal to x in other layouts: Fortran, reversed, sliced, swapped, unaligned."""
    wide = np.zeros(tuple(2 * n + 1 for n in x.shape), x.dtype)
    sliced = wide[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    sliced[...] = x
    turned = tuple(slice(None, None, -1) for _ in x.shape)
    backward = np.ascontiguousarray(x[turned])[turned]
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    layouts = {
        "fortran": np.asfortranarray(x),
        "sliced": sliced,
        "backward": backward,
        "unaligned": unaligned,
        "read-only": frozen,
    }
    for name, view in layouts.items():
        assert view.shape == x.shape and (view == x).all(), name
    return layouts


def raises(error, argument, call, *args, **options):
    """The call fails with this exception, and the message starts with the argument's name.

    `argument` may be several names, "a|b"; None stands for any message.
    """
    kinds = error if isinstance(error, tuple) else (error,)
    try:
        result = call(*args, **options)
    except Exception as caught:  # any other exception is a failure of the test, reported as such
        first = re.match(r"\w*", str(caught)).group()
        right = argument is None or first in argument.split("|")
        if isinstance(caught, kinds) and right:
            return str(caught)
        raise AssertionError(
            f"expected {error} naming {argument!r}, got {type(caught).__name__}: {caught}"
        ) from caught
    raise AssertionError(f"expected {error} naming {argument!r}, got the result {result!r}")
