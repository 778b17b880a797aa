"""The oracle of low-bit weights against truths that were reached by other means: fractions, examples, searches."""

import math
from fractions import Fraction

import cases
import numpy as np
import pytest
import weight_cases

from qkernels import ref
from qkernels.ref import weights

pytestmark = pytest.mark.any_isa


def nearest32(value):
    """The float32 nearest to a Fraction, half to even; subnormals and infinity included."""
    if value == 0:
        return np.float32(0)
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    step = Fraction(2) ** max(exponent - 23, -149)
    rounded = round(value / step) * step
    return np.float32(math.copysign(math.inf, rounded)) if abs(rounded) >= 2**128 else np.float32(rounded)


def fractions(*values):
    return [Fraction(float(value)) for value in values]


def hard_sums():
    """a * b + c next to the middle of two float32, where rounding to float64 first goes wrong; and all sizes."""
    near = np.float32(1 + 2.0**-12), np.float32(1 + 2.0**-12)  # 1 + 2**-11 + 2**-24: half a step
    for tiny in (2.0**-60, 2.0**-100, 2.0**-149):
        for sign in (1, -1):
            yield *near, np.float32(sign * tiny)
            yield -near[0], near[1], np.float32(sign * tiny)
    yield np.float32(2.0**-75), np.float32(2.0**-75), np.float32(2.0**-149)  # half of the least subnormal
    yield np.float32(2.0**-75), np.float32(1.5 * 2.0**-75), np.float32(0)
    yield np.float32(2.0**127), np.float32(2), np.float32(-(2.0**104))
    yield np.float32(2.0**127), np.float32(2), np.float32(-(2.0**103))
    bits = cases.ints(1, (3, 4000), 0, 2**32 - 1).astype(np.uint32).view(np.float32)
    yield from bits[:, np.isfinite(bits).all(axis=0)].T
    a, b = cases.floats(2, (2, 2000)) + np.float32(1)
    yield from np.stack([a, b, -(a * b)], axis=1)  # what the product's rounding left out
    yield from np.stack([a, b, cases.floats(3, (2000,), 2.0**-20)], axis=1)


def test_fma_against_fractions():
    inputs = np.array(list(hard_sums()), np.float32)
    got = weights.fma(*inputs.T)
    assert got.dtype == np.float32
    want = []
    for a, b, c in inputs:
        x, y, z = fractions(a, b, c)
        want.append(nearest32(x * y + z))
    np.testing.assert_array_equal(got, np.float32(want))
    a, b, c = inputs.T.astype(np.float64)
    with np.errstate(over="ignore"):
        twice_rounded = (a * b + c).astype(np.float32)
    assert (twice_rounded != got).sum() >= 4  # the cases are hard ones


def test_fma_of_zeros_and_infinities():
    zero, inf = np.float32(0), np.float32(np.inf)
    cases.assert_same(weights.fma(np.float32([-1, 1, 0]), np.float32([0, 0, -5]), -zero), np.float32([-0.0, 0, -0.0]))
    cases.assert_same(weights.fma(np.float32([1]), np.float32([1]), inf), np.float32([np.inf]))
    assert np.isnan(weights.fma(inf, np.float32([1]), -inf)).all()


@pytest.mark.parametrize("k, group_size, block", [
    (0, None, 32), (1, None, 32), (32, None, 32), (33, None, 64), (256, None, 256), (257, None, 160), (300, None, 160),
    (513, None, 192), (1024, None, 256), (11008, None, 256), (300, 300 + 20, 160), (256, 512, 256), (64, 64, 64),
    (100, 32, 32), (1024, 64, 64), (1024, 128, 128), (1024, 512, 256), (1024, 96, 96), (1024, 320, 160),
    (1024, 352, 32), (1024, 384, 192), (0, 32, 32),
])  # fmt: skip
def test_block_size(k, group_size, block):
    assert weights.block_size(k, group_size) == block


def test_split():
    """Digits lie in [-127, 127] and mean x, rounded to a step that is the least possible."""
    limit = weights.SPLIT_LIMIT
    rows = [cases.floats(1, (300,), size) for size in (1.0, 1e-30, 3e38, 1e-44)]
    rows.append(np.float32([limit, limit - 1, -limit, 5] * 75))
    rows.append(np.float32([limit + 1, 3, -1, 0] * 75))
    rows.append(np.zeros(300, np.float32))
    x = np.stack(rows).astype(np.float32)
    digits = weights.split(x, 64)
    steps = digits[2][1]
    total = np.zeros(x.shape)
    for (digit, scale), worth in zip(digits, (64516, 254, 1)):
        assert np.abs(digit).max() <= 127 and (digit == np.rint(digit)).all()
        cases.assert_same(scale, steps * np.float32(worth))
        total += digit.astype(np.float64) * np.repeat(scale, 64, axis=1)[:, :300]
    each = np.repeat(steps, 64, axis=1)[:, :300].astype(float)
    assert (np.abs(total - x) <= each / 2).all()
    for step, part in zip(steps.T, np.split(np.pad(x, ((0, 0), (0, 20))), 5, axis=1)):
        largest = np.abs(part).max(axis=1)
        assert (largest <= limit * step.astype(float)).all()
        step = step.astype(float)
        assert ((largest > limit * step / 2) | (step == 2.0**-149)).all()
        assert (step[step > 2.0**-149] / 2 <= largest[step > 2.0**-149] / 2.0**22).all()  # the bound of the docstring
    assert (steps[4] == 1).all() and (steps[5] == 2).all() and (steps[6] == 2.0**-149).all()
    assert (total[3] == x[3]).all()  # nothing is lost of subnormal numbers


def test_quantize_weight_by_hand():
    w = np.zeros((2, 40), np.float32)
    w[0, :3], w[0, 32:35] = [7, -3.5, 0.4], [0.1, 0.05, -0.7]
    got = ref.quantize_weight(w, "int4", group_size=32)
    assert got.codes.shape == (2, 40) and got.codes[0, :4].tolist() == [15, 4, 8, 8]  # -3.5 to even, -4
    assert got.codes[0, 32:36].tolist() == [9, 9, 1, 8]  # 0.05: half of 0.1, more of its float16
    cases.assert_same(got.scales.astype(np.float32), np.float32([[1, np.float16(0.1)], [1, 1]]))
    assert got.scales.dtype == np.float16 and got.zero_points is None and (got.codes[1] == 8).all()

    w = np.float32([[-1, 0, 2, 1.1]])
    got = ref.quantize_weight(w, "int2", symmetric=False, scale_dtype="float32")
    assert got.codes.tolist() == [[0, 1, 3, 2]] and got.zero_points.tolist() == [[1]] and got.scales.tolist() == [[1]]
    tiny = ref.quantize_weight(np.float32([[1e-12, -1e-12]]), "int8")
    assert tiny.scales.tolist() == [[2.0**-24]] and tiny.codes.tolist() == [[128, 128]]


@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_the_best_of_its_ranges(symmetric):
    w = cases.floats(1, (5, 96), 0.3) * cases.floats(2, (5, 96)) ** 2
    groups = w.reshape(15, 32)

    def errors(values):
        return np.square(values.reshape(15, 32) - groups, dtype=np.float64).sum(axis=1)

    options = {"group_size": 32, "symmetric": symmetric}
    plain = errors(ref.quantize_weight(w, "int4", **options).dequantize())
    best = errors(ref.quantize_weight(w, "int4", method="mse", **options).dequantize())
    tried = []
    for shrink in weights.SHRINKS:
        low, high = groups.min(axis=1).clip(max=0) * shrink, groups.max(axis=1).clip(min=0) * shrink
        span = np.maximum(-low, high) / 7 if symmetric else (high - low) / 15
        scale = span.astype(np.float16).astype(np.float32)[:, None]
        zero = 8 if symmetric else np.rint(-low[:, None] / scale)
        code = np.clip(np.rint(groups / scale) + zero, 0, 15)
        tried.append(errors((code - zero).astype(np.float32) * scale))
    np.testing.assert_allclose(plain, tried[0], rtol=1e-12)
    np.testing.assert_allclose(best, np.min(tried, axis=0), rtol=1e-12)
    assert (best < plain).sum() >= 5


def by_fractions(x, w, bias, parts, row_scale):
    """One output of the linear layer, each operation rounded by `nearest32`; parts is [(digits, block scales)]."""
    block = weights.block_size(len(x), w.group_size)
    sums = []
    for q, scales in parts:
        total = np.float32(0)
        for b, start in enumerate(range(0, len(x), block)):
            group = 0 if w.group_size is None else start // w.group_size
            zero = 2 ** (w.bits - 1) if w.zero_points is None else int(w.zero_points[0, group])
            acc = sum(int(q[i]) * (int(w.codes[0, i]) - zero) for i in range(start, min(start + block, len(x))))
            factor = Fraction(acc) if scales is None else Fraction(float(nearest32(acc * Fraction(float(scales[b])))))
            scale, before = fractions(w.scales[0, group], total)
            total = nearest32(factor * scale + before)
        sums.append(total)
    y = sums[0]
    for more in sums[1:]:
        y = nearest32(sum(fractions(y, more)))
    y = nearest32(math.prod(fractions(y, row_scale)))
    return nearest32(sum(fractions(y, bias)))


@pytest.mark.parametrize("mode", weight_cases.MODES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("k, group_size", [(40, None), (300, None), (100, 32), (520, 512)])
def test_linear_against_fractions(mode, symmetric, k, group_size):
    w = weight_cases.weight(1, 1, k, "int4", group_size, symmetric)
    x, bias = cases.floats(2, (3, k), 5.0), cases.floats(3, (1,))
    got = ref.linear(x, w, bias, **mode)
    block = weights.block_size(k, group_size)
    for i, row in enumerate(x):
        scale = np.float32(1)
        if mode["activations"] == "float32":
            parts = [(digits[0], scales[0]) for digits, scales in weights.split(row[None], block)]
        elif mode["activation_scales"] == "group":
            scales = ref.choose_qparams(row, group_size=block).scale
            parts = [(ref.quantize(row, scales, group_size=block), scales)]
        else:
            q, scale, _ = ref.dynamic_quantize(row, dtype="int8", symmetric=True)
            parts = [(q, None)]
        assert got[i, 0] == by_fractions(row, w, bias[0], parts, scale)


def test_linear_is_close_to_float():
    w, x = cases.floats(1, (6, 64)), cases.floats(2, (2, 3, 64))
    weight = ref.quantize_weight(w)
    bias = cases.floats(3, (6,))
    exact = x.astype(float) @ w.T.astype(float) + bias
    for mode in weight_cases.MODES:
        got = ref.linear(x, weight, bias, **mode)
        assert got.shape == (2, 3, 6) and got.dtype == np.float32
        assert np.abs(got - exact).max() < 0.15
        assert (ref.linear(x, weight, bias, activation="relu", **mode) >= 0).all()
