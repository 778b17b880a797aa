"""Integer output of int8_gemm: both requantization forms at ties, extremes and saturation.

With a and b zero the accumulator is the int32 bias itself, so any accumulator can be asked for.
"""

import itertools

import cases
import numpy as np
import pytest
from cases import assert_same

import qkernels
from qkernels import ref

FORMS = ["float", "fixed"]
OUT = ["int8", "uint8"]
LARGEST = 2**31 - 1


def requantize(acc, scales, out_scale, k=0, **options):
    """The row `acc`, requantized; checked against the oracle."""
    acc = np.asarray(acc, np.int32)
    a, b = np.zeros((1, k), np.int8), np.zeros((k, acc.size), np.int8)
    options.setdefault("out_dtype", "int8")
    got = qkernels.int8_gemm(a, b, scales, bias=acc, out_scale=out_scale, **options)
    want = cases.oracle(ref.int8_gemm, a, b, scales, bias=acc, out_scale=out_scale, **options)
    assert_same(got, want, options)
    return got[0]


def accumulators():
    edges = np.array(
        [0, 1, 2, 3, 2**23, 2**24, 2**24 + 1, 2**30, 2**31 - 129, LARGEST - 64, LARGEST]
    )
    spread = [cases.ints(n, (60,), -(4**n), 4**n) for n in range(2, 16)]
    return np.concatenate([edges, -edges] + spread).astype(np.int32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", OUT)
def test_every_size_of_scale(isa, form, dtype):
    acc = accumulators()
    zero = 3 if dtype == "int8" else 131
    for exponent in range(-40, 30, 4):
        scale = np.float32(0.7 * 2.0**exponent)
        options = {"out_dtype": dtype, "out_zero_point": zero, "requant": form}
        requantize(acc, scale, 0.9, **options)
        requantize(acc, cases.scales(exponent + 50, acc.shape, float(scale)), 1.1, **options)


@pytest.mark.parametrize("form", FORMS)
def test_ties(isa, form):
    acc = np.arange(-700, 700)
    for scale in (0.5, 0.25, 0.125, 1.0, 1.5, 0.75):
        requantize(acc, scale, 1.0, requant=form)
        requantize(acc, scale, 1.0, requant=form, out_dtype="uint8", out_zero_point=128)
    halves = requantize([1, 3, 5, -1, -3, -5], 0.5, 1.0, requant=form)
    if form == "float":
        assert halves.tolist() == [0, 2, 2, 0, -2, -2]  # to even
    else:
        assert halves.tolist() == [1, 2, 3, 0, -1, -2]  # the 31-bit multiply rounds half up


def test_fixed_rounds_twice(isa):
    """The right shift then rounds half away from zero."""
    got = requantize([2, -2, 6, -6], 0.25, 1.0, requant="fixed")
    assert got.tolist() == [1, -1, 2, -2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", OUT)
def test_saturation_and_zero_points(isa, form, dtype):
    low, high = cases.LIMITS[np.dtype(dtype).type]
    acc = [LARGEST, -LARGEST, 1000, -1000, 0, 127, 128, -128, -129, 255, 256]
    for zero in (low, low + 1, 0, high):
        got = requantize(acc, 1.0, 1.0, out_dtype=dtype, out_zero_point=zero, requant=form)
        assert (got[0], got[1], got[4]) == (high, low, zero)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", OUT)
def test_activation(isa, form, dtype):
    acc = np.arange(-400, 400, 3)
    bounds = [
        (-1.5, 2.25),
        (0.25, 0.75),
        (-np.inf, 1.0),
        (0, np.inf),
        (-1e30, 1e30),
        (5.0, 9.0),
        (1, 1),
    ]
    for activation in [None, "relu", "relu6", *bounds]:
        for zero in (cases.LIMITS[np.dtype(dtype).type][0], 100):
            options = {"out_dtype": dtype, "out_zero_point": zero, "requant": form}
            requantize(acc, 0.02, 0.05, activation=activation, **options)


def test_float_bias_and_row_scales(isa):
    m, n, k = 7, 37, 9
    a, b = cases.bytes8(1, (m, k), np.uint8), cases.bytes8(2, (k, n), np.int8)
    bias = cases.floats(3, (n,), 50.0)
    for dtype in OUT:
        for scales in (np.float32(0.002), cases.scales(4, (n,), 0.004)):
            for rows in (None, cases.scales(5, (m,), 2.0)):
                for shift in (None, bias, cases.ints(6, (n,), -9999, 9999, np.int32)):
                    options = {
                        "out_dtype": dtype, "out_scale": 0.37, "row_scales": rows, "bias": shift,
                        "a_zero_point": 99, "activation": (-20.0, 30.0),
                    }  # fmt: skip
                    got = qkernels.int8_gemm(a, b, scales, **options)
                    assert_same(got, cases.oracle(ref.int8_gemm, a, b, scales, **options), options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("types", cases.SIGNS, ids=lambda t: "".join(d.__name__[0] for d in t))
def test_after_a_real_product(isa, types, form):
    for m, n, k in [(1, 1, 1), (1, 33, 70), (5, 17, 64), (9, 66, 31), (14, 8, 129)]:
        a, b = cases.bytes8(1, (m, k), types[0]), cases.bytes8(2, (k, n), types[1])
        options = {
            "a_zero_point": 7, "b_zero_point": cases.bytes8(4, (n,), types[1]),
            "bias": cases.ints(5, (n,), -5000, 5000, np.int32), "requant": form,
            "out_dtype": "uint8", "out_scale": 0.11, "out_zero_point": 120, "activation": "relu6",
        }  # fmt: skip
        scales = cases.scales(6, (n,), 2e-4)
        got = qkernels.int8_gemm(a, b, scales, **options)
        assert_same(got, ref.int8_gemm(a, b, scales, **options), (m, n, k))


def test_fixed_smallest_multipliers(isa):
    """A multiplier of 2**-32 is the smallest that TFLite keeps; below, everything becomes 0."""
    acc = [LARGEST, -LARGEST, 2**30, -(2**30), 2**30 - 1, 5]
    for exponent, fraction in itertools.product((-30, -31, -32, -33, -60), (0.5, 0.6, 0.9)):
        requantize(acc, fraction * 2.0**exponent, 1.0, requant="fixed", out_zero_point=-7)
    kept = requantize(acc, 0.9 * 2.0**-31, 1.0, requant="fixed", out_zero_point=-7)
    gone = requantize(acc, 0.9 * 2.0**-32, 1.0, requant="fixed", out_zero_point=-7)
    assert kept.tolist()[:2] == [-6, -8] and gone.tolist() == [-7] * 6


def test_k_beyond_int32_is_rounded_once(isa):
    """The exact sum needs more than 32 bits; int8 output still comes from all of it."""
    k = 70_001
    a, b = np.full((1, k), 255, np.uint8), np.full((k, 2), 255, np.uint8)
    b[1::2, 1] = 0
    for dtype, out_scale in (("uint8", 2e7), ("int8", 5e7), ("uint8", 1e3)):
        got = qkernels.int8_gemm(a, b, 1.0, out_dtype=dtype, out_scale=out_scale)
        assert_same(got, ref.int8_gemm(a, b, 1.0, out_dtype=dtype, out_scale=out_scale))
