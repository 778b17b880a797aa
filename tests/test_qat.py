"""The gradients of fake_quantize against the oracle, bit for bit, and what they must be besides."""

import itertools

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from test_affine import DTYPES, EMPTY, LAYOUTS, RANGES, sample

import qkernels
from qkernels import qat
from qkernels.ref import qat as ref


def same(got, want, what=""):
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert_same(g, w, (what, i))


def both(dy, x, *args, **options):
    """What the package gives, after comparing it with the oracle."""
    got = qat.learned_fake_quantize_backward(dy, x, *args, **options)
    same(got, ref.learned_fake_quantize_backward(dy, x, *args, **options), (x.shape, options))
    options.pop("grad_factor", None)
    assert_same(qat.fake_quantize_backward(dy, x, *args, **options), got[0])
    return got


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(isa, dtype):
    for shape, axis, group_size in [*LAYOUTS, *EMPTY, ((2, 3, 4), 0, None), ((6, 1), 1, None), ((9, 20, 1), 1, None)]:
        x, scale, zero = sample(shape, axis, group_size, dtype)
        dy = cases.floats(9, shape, 3.0)
        where = {"dtype": dtype, "axis": axis, "group_size": group_size}
        both(dy, x * np.float32(1.5), scale, zero, **where)
        both(dy, x, scale, **where, grad_factor=0.37)
        both(dy, x, 0.05, 0, **where)


def test_lengths(isa):
    for n in [*range(36), 63, 64, 65, 1000]:
        dy, x = cases.floats(n, (3, n)), cases.floats(n + 1, (3, n), 2.0)
        scale = cases.scales(n, (3,), 0.1)
        both(dy, x, 0.1, 3, dtype="int4")
        both(dy, x, scale, [0, 7, -8], dtype="int4", axis=0)
        both(dy.T, x.T, scale, [0, 7, -8], dtype="int4", axis=1)


def test_ties_bounds_and_their_neighbors(isa):
    """The mask is that of the rounded value, whose ties go to even: 127.5 is out of int8, 6.5 is not of int4."""
    for dtype, scale in itertools.product(DTYPES, np.float32([1, 0.25, 0.1, 7, 1e-38, 1e36])):
        low, high = RANGES[dtype]
        for zero in (low, high, (low + high + 1) // 2):
            bounds = (np.arange(-3, 4, dtype=np.float32) / 2 + np.float32([[low - zero], [high - zero]])) * scale
            x = np.stack([bounds, np.nextafter(bounds, np.float32(3e38)), np.nextafter(bounds, np.float32(-3e38))])
            both(cases.floats(2, x.shape), x, scale, zero, dtype=dtype)
    assert qat.fake_quantize_backward([1.0, 1.0], [126.5, 127.5], 1.0).tolist() == [1, 0]


def test_infinities_saturate_and_gradients_of_any_size(isa):
    x = np.float32([np.inf, -np.inf, 3e38, -3e38, 1e-45, -0.0, 0.0] * 5)
    dy = np.float32([3e38, -3e38, 1e-45, -1e-45, 1, -1, 0, 1e30] * 5)[: x.size]
    for dtype, scale in itertools.product(DTYPES, (1e-38, 1.0, 3e38)):
        dx, _, _ = both(dy, x, scale, dtype=dtype)
        assert not np.signbit(dx[:2]).any() and not dx[:2].any()
    nan = qat.learned_fake_quantize_backward(np.float32([np.nan, 1]), np.float32([0.2, 0.3]), 1.0)
    assert np.isnan(nan[0]).tolist() == [True, False] and np.isnan(nan[1]) and nan[2] == 0


@pytest.mark.parametrize("name", ["fortran", "sliced", "backward", "unaligned", "read-only"])
def test_strided_input(isa, name):
    for shape, axis, group_size in (LAYOUTS[2], LAYOUTS[6], LAYOUTS[11]):
        x, scale, zero = sample(shape, axis, group_size, "int8")
        dy = cases.floats(9, shape)
        where = {"axis": axis, "group_size": group_size}
        views = cases.strided(dy)[name], cases.strided(x)[name]
        got = qat.learned_fake_quantize_backward(*views, scale, zero, **where)
        same(got, ref.learned_fake_quantize_backward(dy, x, scale, zero, **where))
        assert got[0].flags.c_contiguous


@pytest.mark.any_isa
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_learned_scale_by_finite_differences(axis):
    """Rounding, which has no derivative, is held: a value keeps its distance from the level that it is rounded to."""
    x, scale, zero = sample((5, 37), axis, None, "int4")
    wide, dy = x.astype(np.float64), cases.floats(9, (5, 37)).astype(np.float64)
    steps = (scale[:, None] if axis == 0 else scale).astype(np.float64)
    zeros = (zero[:, None] if axis == 0 else zero).astype(np.float64)
    distance = np.rint(wide / steps) - wide / steps
    level = np.rint(wide / steps) + zeros
    dy[(level == -8) | (level == 7)] = 0  # at the kinks of the clamp

    def forward(scale):
        return (np.clip(wide / scale + distance + zeros, -8, 7) - zeros) * scale

    h = 1e-6 * steps
    want = np.sum(dy * (forward(steps + h) - forward(steps - h)) / (2 * h), axis=None if axis is None else 1 - axis)
    got = qat.learned_fake_quantize_backward(np.float32(dy), x, scale, zero, dtype="int4", axis=axis)[1]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.any_isa
def test_learned_zero_point_by_differences():
    """A zero point one higher moves clipped values down by a step, and no others: exactly, away from the bounds."""
    x = np.float32([-3, -1, 0.25, 1, 3]) * 100
    dy = np.float32([1, 2, 4, 8, 16])
    for zero in (-2, 0, 3):
        here, higher = (qkernels.fake_quantize(x, 20.0, z, dtype="int4") for z in (zero, zero + 1))
        got = qat.learned_fake_quantize_backward(dy, x, 20.0, zero, dtype="int4")[2]
        assert got == np.sum(dy * (higher - here))


@pytest.mark.any_isa
def test_lsq_scale():
    w = cases.floats(1, (6, 5, 7), 2.0)
    for dtype, axis in itertools.product(DTYPES, (None, 0, 1, -1)):
        others = None if axis is None else tuple(i for i in range(3) if i != axis % 3)
        want = 2 * np.abs(w.astype(np.float64)).mean(axis=others) / np.sqrt(RANGES[dtype][1])
        got = qat.lsq_scale(w, dtype, axis=axis)
        assert got.dtype == np.float32 and np.shape(got) == np.shape(want)
        np.testing.assert_allclose(got, want, rtol=1e-6)
    assert qat.lsq_scale(np.float32([[0, 0], [1e-45, 0]]), axis=0).tolist() == [1, 2.0**-126]
    assert qat.lsq_scale([3e38], "int2") == np.finfo(np.float32).max
    assert qat.lsq_scale(np.zeros((0, 3), np.float32)) == 1
    assert qat.lsq_scale(np.zeros((0, 3), np.float32), axis=0).shape == (0,)
    assert qat.lsq_scale(np.zeros((0, 3), np.float32), axis=1).tolist() == [1, 1, 1]
    assert qat.lsq_grad_factor(7, "int4") == 1 / 7


@pytest.mark.any_isa
@pytest.mark.filterwarnings("error")
def test_bad_arguments():
    x = cases.floats(1, (3, 4))
    for call in (qat.fake_quantize_backward, qat.learned_fake_quantize_backward):
        raises(TypeError, "dy", call, x.astype(np.float64), x, 1.0)
        raises(TypeError, "x", call, x, x.astype(np.float16), 1.0)
        raises(ValueError, "dy", call, x[:, :3], x, 1.0)
        raises(ValueError, "x", call, x, np.where(x == x[1, 2], np.float32(np.nan), x), 1.0)
        raises(ValueError, "scale", call, x, x, 0.0)
        raises(ValueError, "scale", call, x, x, [0.1, 0.2], axis=0)
        raises(ValueError, "zero_point", call, x, x, 1.0, 8, dtype="int4")
        raises(TypeError, "dtype", call, x, x, 1.0, dtype="int3")
        raises(ValueError, "axis", call, x, x, 1.0, axis=2)
    raises(ValueError, "grad_factor", qat.learned_fake_quantize_backward, x, x, 1.0, grad_factor=0.0)
    raises(TypeError, "grad_factor", qat.learned_fake_quantize_backward, x, x, 1.0, grad_factor="1")
    raises(TypeError, "w", qat.lsq_scale, x.astype(np.float64))
    raises(ValueError, "w", qat.lsq_scale, np.float32([1, np.inf]))
    raises(ValueError, "axis", qat.lsq_scale, x, axis=2)
    raises(ValueError, "n", qat.lsq_grad_factor, 0)
    raises(TypeError, "n", qat.lsq_grad_factor, 1.5)
