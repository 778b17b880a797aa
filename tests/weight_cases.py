"""Quantized weights for tests: the oracle's, with codes and zero points over their whole range, and the package's."""

import functools
import itertools

import cases
import numpy as np

import qkernels
from qkernels import ref

FORMATS = {"int8": 8, "int4": 4, "int2": 2}
GROUPS = [None, 32, 64, 128, 512]
MODES = [
    {"activations": "int8", "activation_scales": "row"},
    {"activations": "int8", "activation_scales": "group"},
    {"activations": "float32"},
]
# format, group_size, symmetric, scale_dtype
KINDS = list(itertools.product(FORMATS, GROUPS, (True, False), ("float16", "float32")))
TABLES = ("nf4", "log4", "codebook4", "codebook4 by row")
KINDS += itertools.product((*TABLES, "binary", "ternary"), GROUPS, (True,), ("float16", "float32"))
TRELLISES = [f"trellis{bits}{window}" for bits in (2, 3, 4) for window in ("", " 12", " 16")]
KINDS += itertools.product(TRELLISES, GROUPS, (True,), ("float16",))


def weight(seed, n, k, format="int4", group_size=None, symmetric=True, scale_dtype="float16"):
    """A ref.Weight."""
    if format.startswith("trellis"):
        return stream(seed, n, k, format, group_size, scale_dtype)
    format, _, by_row = format.partition(" ")
    bits = FORMATS.get(format) or ref.formats.BITS[format]
    top = 2**bits - 1
    groups = 1 if group_size is None else -(-k // group_size)

    def codes(seed, shape):
        values, kind = cases.ints(seed, shape, 0, top), cases.ints(seed + 7919, shape, 0, 15)
        return np.where(kind == 0, 0, np.where(kind == 1, top, values)).astype(np.uint8)

    scales = cases.scales(seed + 1, (n, groups)).astype(scale_dtype)
    if format in FORMATS:
        zero_points = None if symmetric else codes(seed + 2, (n, groups))
        return ref.Weight(codes(seed, (n, k)), scales, zero_points, bits, group_size)
    table = cases.bytes8(seed + 3, (n, 16) if by_row else (16,), np.int8) if format == "codebook4" else None
    used = np.maximum(codes(seed, (n, k)), format == "ternary").astype(np.uint8)  # whose code 0 has no meaning
    return ref.weight_of_codes(format, used, scales, group_size, table)


def stream(seed, n, k, format, group_size, scale_dtype):
    """A ref.Weight of a trellis, of random bits: "trellis3", and with a window "trellis3 12"."""
    bits, window = int(format[7]), int(format[8:] or 0)
    block = ref.weights.block_size(k, group_size)
    scales = cases.scales(seed + 1, (n, 1 if group_size is None else -(-k // group_size))).astype(scale_dtype)
    levels = fine_levels(window) if window else qkernels.trellis.levels(bits)
    words = cases.bytes8(seed, (n, -(-k // block) * block * bits // 8), np.uint8)
    return ref.weight_of_stream(words, scales, bits, group_size, k, levels, window or None)


@functools.lru_cache
def fine_levels(window):
    return ref.trellis.fine_levels(window)


def packed(w):
    """The QuantizedWeight of a ref.Weight."""
    stream = {"k": w.integers().shape[1], "window": w.window} if (w.format or "").startswith("trellis") else {}
    return qkernels.QuantizedWeight(
        w.format or f"int{w.bits}", w.codes, w.scales, w.zero_points, w.group_size, levels=w.table, **stream)


def assert_same_weight(got, want, what=""):
    """A QuantizedWeight has the codes, scales, zero points and levels of a ref.Weight."""
    codes, scales, zero_points = got.packed.unpack()
    assert got.format == (want.format or f"int{want.bits}"), what
    if want.table is not None:
        np.testing.assert_array_equal(got.levels, want.table, err_msg=str(what))
    assert (got.bits, got.group_size) == (want.bits, want.group_size), what
    np.testing.assert_array_equal(codes, want.codes, err_msg=str(what))
    assert scales.dtype == want.scales.dtype, what
    np.testing.assert_array_equal(scales, want.scales, err_msg=str(what))
    assert got.symmetric == (want.zero_points is None) == (zero_points is None), what
    if zero_points is not None:
        assert zero_points.dtype == np.uint8
        np.testing.assert_array_equal(zero_points, want.zero_points, err_msg=str(what))
