"""Quantized weights for tests: the oracle's, with codes and zero points over their whole range, and the package's."""

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


def weight(seed, n, k, format="int4", group_size=None, symmetric=True, scale_dtype="float16"):
    """A ref.Weight."""
    top = 2 ** FORMATS[format] - 1
    groups = 1 if group_size is None else -(-k // group_size)

    def codes(seed, shape):
        values, kind = cases.ints(seed, shape, 0, top), cases.ints(seed + 7919, shape, 0, 15)
        return np.where(kind == 0, 0, np.where(kind == 1, top, values)).astype(np.uint8)

    scales = cases.scales(seed + 1, (n, groups)).astype(scale_dtype)
    zero_points = None if symmetric else codes(seed + 2, (n, groups))
    return ref.Weight(codes(seed, (n, k)), scales, zero_points, FORMATS[format], group_size)


def packed(w):
    """The QuantizedWeight of a ref.Weight."""
    return qkernels.QuantizedWeight(f"int{w.bits}", w.codes, w.scales, w.zero_points, w.group_size)


def assert_same_weight(got, want, what=""):
    """A QuantizedWeight has the codes, scales and zero points of a ref.Weight."""
    codes, scales, zero_points = got.packed.unpack()
    assert (got.bits, got.group_size) == (want.bits, want.group_size), what
    np.testing.assert_array_equal(codes, want.codes, err_msg=str(what))
    assert scales.dtype == want.scales.dtype, what
    np.testing.assert_array_equal(scales, want.scales, err_msg=str(what))
    assert got.symmetric == (want.zero_points is None) == (zero_points is None), what
    if zero_points is not None:
        assert zero_points.dtype == np.uint8
        np.testing.assert_array_equal(zero_points, want.zero_points, err_msg=str(what))
