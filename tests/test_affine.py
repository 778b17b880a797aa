"""quantize, dequantize, fake_quantize, dynamic_quantize and choose_qparams against the oracle."""

import itertools

import cases
import numpy as np
import pytest
from cases import assert_same

import qkernels
from qkernels import ref

DTYPES = ["int8", "uint8", "int4", "uint4", "int2", "uint2"]
RANGES = ref.affine.RANGES
# (shape of x, axis, group_size): tensor, each axis, groups that do and do not divide the row
LAYOUTS = [
    ((5, 37), None, None),
    ((131,), None, None),
    ((3, 4, 65), None, None),
    ((), None, None),
    ((5, 37), 0, None),
    ((5, 37), 1, None),
    ((3, 4, 33), 1, None),
    ((3, 4, 33), -1, None),
    ((3, 4, 33), -3, None),
    ((7,), 0, None),
    ((4, 64), None, 16),
    ((3, 2, 45), None, 32),
    ((2, 9), None, 1),
    ((2, 9), None, 100),
]
EMPTY = [
    ((0,), None, None),
    ((0, 5), 1, None),
    ((0, 5), 0, None),
    ((4, 0), 0, None),
    ((4, 0), None, 8),
    ((0, 20), None, 8),
]


def scale_shape(shape, axis, group_size):
    if axis is not None:
        return (shape[axis],)
    if group_size is not None:
        return shape[:-1] + (-(-shape[-1] // group_size),)
    return ()


def sample(shape, axis, group_size, dtype):
    """Data, scales and zero points over the whole range of the type."""
    where = scale_shape(shape, axis, group_size)
    low, high = RANGES[dtype]
    zero = cases.ints(3, where, low, high, ref.affine.storage(dtype))
    scale = cases.scales(2, where, 0.02)
    return cases.floats(1, shape, 0.02 * (high - low)), scale, zero


def both(name, *args, **options):
    """What the package gives, after comparing it with the oracle."""
    got = getattr(qkernels, name)(*args, **options)
    want = cases.oracle(getattr(ref, name), *args, **options)
    parts = [(got, want)] if isinstance(want, np.ndarray) else zip(got, want)
    for i, (g, w) in enumerate(parts):
        if isinstance(w, (np.ndarray, np.generic)):
            assert_same(g, w, (name, i, np.shape(args[0]), options))
        else:
            assert g == w and type(g) is type(w), (name, i)
    return got


@pytest.mark.parametrize("dtype", DTYPES)
def test_quantize_and_back(isa, dtype):
    for shape, axis, group_size in LAYOUTS + EMPTY:
        x, scale, zero = sample(shape, axis, group_size, dtype)
        where = {"dtype": dtype, "axis": axis, "group_size": group_size}
        q = both("quantize", x, scale, zero, **where)
        back = both("dequantize", q, scale, zero, **where)
        assert_same(both("fake_quantize", x, scale, zero, **where), back, (shape, where))
        both("quantize", x, scale, **where)
        both("dequantize", q, scale, **where)


@pytest.mark.parametrize("dtype", DTYPES)
def test_choose_qparams(isa, dtype):
    for shape, axis, group_size in LAYOUTS + EMPTY:
        x = cases.floats(5, shape, 3.0)
        where = {"axis": axis, "group_size": group_size}
        for moved in (x, np.abs(x), -np.abs(x), np.zeros_like(x)):
            for symmetric in (True, False):
                got = both("choose_qparams", moved, dtype, symmetric=symmetric, **where)
                assert np.shape(got.scale) == scale_shape(shape, axis, group_size)
        both("choose_qparams", x, dtype, full_range=True, **where)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dynamic_quantize(isa, dtype):
    for shape, axis, group_size in LAYOUTS + EMPTY:
        x = cases.floats(6, shape, 2.0)
        if shape and shape[0] > 2:
            x[1] = 0  # an all-zero row
        if group_size is None:
            for symmetric in (True, False):
                both("dynamic_quantize", x, axis=axis, dtype=dtype, symmetric=symmetric)
            both("dynamic_quantize", np.abs(x))


def test_dynamic_quantize_lengths(isa):
    for n in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 127, 129, 1000]:
        both("dynamic_quantize", cases.floats(n, (2, n)), axis=0, dtype="int8", symmetric=True)
        both("dynamic_quantize", cases.floats(n, (n,), 9.0))


def test_ties_round_to_even(isa):
    ties = np.arange(-140, 140, dtype=np.float32) + np.float32(0.5)
    for scale in (1.0, 0.25, 4.0):
        for zero in (-128, -1, 0, 127):
            both("quantize", ties * np.float32(scale), scale, zero)


def test_division_is_a_true_division(isa):
    """The neighbours of every tie: a reciprocal would put some of them on the wrong side."""
    for scale in np.float32([0.1, 0.3, 0.0235, 7.0, 1e-3]):
        tie = (np.arange(-128, 128, dtype=np.float32) + np.float32(0.5)) * scale
        near = [tie, np.nextafter(tie, np.float32(np.inf)), np.nextafter(tie, np.float32(-np.inf))]
        both("quantize", np.concatenate(near), scale)
        both("quantize", np.concatenate(near), scale, 128, dtype="uint8")


def test_infinities_and_huge_values_saturate(isa):
    x = np.float32(
        [np.inf, -np.inf, 3e38, -3e38, 1e-45, -1e-45, -0.0, 0.0, 2.0**31, -(2.0**31)] * 5
    )
    for dtype, scale in itertools.product(DTYPES, (1e-38, 1e-3, 1.0, 3e38)):
        for zero in RANGES[dtype]:
            q = both("quantize", x, scale, zero, dtype=dtype)
            both("dequantize", q, scale, zero, dtype=dtype)
            assert (q[1], q[0]) == RANGES[dtype]


def test_fake_quantize_has_no_negative_zero(isa):
    got = both("fake_quantize", np.float32([-0.0, -1e-9, -0.4, 0.4]), 1.0, 7)
    assert not np.signbit(got).any()


def test_choose_qparams_extremes(isa):
    for symmetric in (True, False):
        for values in ([-3e38, 3e38], [1e-45], [-1e-45, 1e-40], [2.0**-126], [3.4e38], [-0.0], [5]):
            x = np.float32(values * 20)
            got = both("choose_qparams", x, symmetric=symmetric)
            assert np.isfinite(got.scale) and got.scale >= np.float32(2.0**-126)
            both("choose_qparams", x, "uint8", symmetric=symmetric)
            both("dynamic_quantize", x, symmetric=symmetric)
            both("dynamic_quantize", x[None], axis=0, dtype="int8", symmetric=symmetric)


def test_asymmetric_range_holds_zero_exactly(isa):
    for low in (-4.0, -1.0, 0.5, 3.0):
        x = np.float32([low, low + 1])
        params = qkernels.choose_qparams(x, "uint8", symmetric=False)
        zero = qkernels.quantize(np.float32([0]), params.scale, params.zero_point, dtype="uint8")
        assert zero[0] == params.zero_point


@pytest.mark.parametrize("name", ["fortran", "sliced", "backward", "unaligned", "read-only"])
def test_strided_input_and_out(isa, name):
    for shape, axis, group_size in (LAYOUTS[2], LAYOUTS[6], LAYOUTS[11]):
        strided_input_and_out(name, shape, axis, group_size)


def strided_input_and_out(name, shape, axis, group_size):
    x, scale, zero = sample(shape, axis, group_size, "int8")
    where = {"axis": axis, "group_size": group_size}
    q = ref.quantize(x, scale, zero, **where)
    view = cases.strided(x)[name]
    got = qkernels.quantize(view, scale, zero, **where)
    assert_same(got, q)
    assert got.flags.c_contiguous
    back = ref.dequantize(q, scale, zero, **where)
    assert_same(qkernels.dequantize(cases.strided(q)[name], scale, zero, **where), back)
    assert_same(qkernels.fake_quantize(view, scale, zero, **where), back)
    for g, w in zip(qkernels.choose_qparams(view, **where)[:2], ref.choose_qparams(x, **where)[:2]):
        assert_same(g, w)
    if group_size is None:
        for g, w in zip(
            qkernels.dynamic_quantize(view, axis=axis), ref.dynamic_quantize(x, axis=axis)
        ):
            assert_same(g, w)
    if name != "read-only":
        out_q, out_back = (
            cases.strided(np.zeros_like(q))[name],
            cases.strided(np.zeros_like(x))[name],
        )
        assert qkernels.quantize(x, scale, zero, out=out_q, **where) is out_q
        assert qkernels.dequantize(q, scale, zero, out=out_back, **where) is out_back
        assert_same(out_q, q)
        assert_same(out_back, back)


def test_broadcast_input(isa):
    x = np.broadcast_to(cases.floats(1, (33,)), (4, 33))
    both("quantize", x, 0.01)
    both("dynamic_quantize", x, axis=0)


def test_scalars_and_lists_are_float32(isa):
    assert_same(qkernels.quantize([1.0, -0.5, 3], 0.1), ref.quantize([1.0, -0.5, 3], 0.1))
    assert_same(qkernels.quantize([[1.5], [2]], [0.5, 0.1], axis=0), np.int8([[3], [20]]))
    for scale in (0.5, np.float32(0.5), np.float64(0.5), np.float16(0.5), np.array(0.5)):
        for zero in (3, np.int8(3), np.uint8(3), np.array(3), np.int64(3)):
            got = qkernels.quantize(np.float32([1, 2]), scale, zero)
            assert_same(got, np.int8([5, 7]))
    wide = np.float64([0.1, 0.2])
    x = cases.floats(1, (2, 9))
    assert_same(qkernels.quantize(x, wide, axis=0), ref.quantize(x, np.float32(wide), axis=0))
    # a scalar serves every layout
    assert_same(qkernels.quantize(x, 0.01, axis=0), ref.quantize(x, 0.01))
    assert_same(qkernels.quantize(x, 0.01, group_size=4), ref.quantize(x, 0.01))


def test_dtype_may_be_a_numpy_type(isa):
    x = cases.floats(1, (20,), 3.0)
    for dtype in (np.int8, np.dtype("uint8")):
        both("quantize", x, 0.02, 7, dtype=dtype)
        assert both("choose_qparams", x, dtype).dtype == np.dtype(dtype).name
