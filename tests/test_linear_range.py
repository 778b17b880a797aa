"""linear over the whole range of float32: finite and right where the true result is, the oracle's bits everywhere."""

import math

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from weight_cases import MODES, packed, weight

import qkernels
from qkernels import ref

LARGEST = float(np.finfo(np.float32).max)
BY_MODE = pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(mode.values()))
FORMATS = ["int8", "int4", "int2", "nf4", "codebook4 by row", "binary", "ternary", "trellis2", "trellis3 12"]
SIZES = [-149, -140, -127, -104, -60, 0, 64, 100, 121, 126]  # of x, by powers of two
SCALES = [-149, -126, -90, -20, 0, 40, 110, 126]  # of the weight


def scaled(w, exponents):
    """The Weight with float32 scales of another size, or of several by group."""
    fractions = np.frexp(w.scales.astype(np.float32))[0]
    return w._replace(scales=np.maximum(np.ldexp(fractions, exponents), np.float32(2.0**-149)).astype(np.float32))


def sized(x, exponent):
    return np.ldexp(x, exponent).astype(x.dtype)


def wide(w):
    """The weight in float64."""
    size = w.integers().shape[1] if w.group_size is None else w.group_size
    return w.integers() * np.repeat(w.scales.astype(np.float64), size, axis=1)[:, : w.integers().shape[1]]


def assert_right(y, x, w, mode, bias=0.0):
    """As close to the true result as the rounding of x allows, and infinite only beyond float32."""
    x, w = x.astype(np.float64), wide(w)
    true, room = x @ w.T + bias, np.abs(x) @ np.abs(w).T + np.abs(bias)
    step = np.abs(x).max(axis=1, initial=0) * (2.0**-22 if mode["activations"] == "float32" else 1 / 127)
    error = (step[:, None] + 2.0**-149) * np.abs(w).sum(axis=1) + 2.0**-20 * room + 2.0**-140
    assert np.isfinite(y[np.abs(true) + error < LARGEST]).all()
    beyond = np.abs(true) - error > LARGEST
    assert (y[beyond] == np.sign(true[beyond]) * np.inf).all()
    near = np.isfinite(y)
    assert (np.abs(y[near] - true[near]) <= error[near]).all()


@BY_MODE
@pytest.mark.parametrize("format", FORMATS)
def test_every_size(isa, format, mode):
    """Every size of x with every size of scale: most products are finite only because one makes up for the other."""
    finite = 0
    for i, group_size in enumerate((None, 64)):
        plain = weight(i, 18, 160, format, group_size)
        x = np.ldexp(np.float32(0.99), cases.ints(i, (3, 160), -3, 0)) * np.sign(cases.floats(i + 1, (3, 160)))
        for scale in SCALES:
            w = scaled(plain, scale)
            qw = packed(w)
            for size in SIZES:
                y = qkernels.linear(sized(x, size), qw, **mode)
                assert_same(y, ref.linear(sized(x, size), w, **mode), (scale, size))
                assert_right(y, sized(x, size), w, mode)
                finite += np.isfinite(y).all()
    assert finite > len(SIZES) * len(SCALES)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode.get("activation_scales") != "row"], ids=str)
def test_sizes_by_group(isa, mode):
    """Groups of tiny x with huge scales beside others of the opposite: each counts, whatever the size of its neighbor.
    (One scale a row holds only its largest values.)"""
    sizes = np.repeat([-149, 120, -130, -110, 3], 32)
    for kind in ("int4", "int8"):
        w = scaled(weight(1, 20, 160, kind, 32), [126, -124, 126, 110, 0])
        x = sized(np.ones((2, 160), np.float32), sizes)
        x[1] *= -1
        y = qkernels.linear(x, packed(w), **mode)
        assert_same(y, ref.linear(x, w, **mode))
        true = x.astype(np.float64) @ wide(w).T
        assert (np.abs(y - true) <= np.abs(x) @ np.abs(wide(w)).T * 2.0**-20).all()


@BY_MODE
def test_partial_sums_beyond_float32(isa, mode):
    """Groups that cancel, among them in one lane only; and in many rows, in some of the panels."""
    for m, n in [(1, 1), (3, 70), (40, 130)]:
        w = weight(1, n, 128, "int8", 32)
        codes, scales = np.full_like(w.codes, 255), np.ones((n, 4), np.float32)
        codes[:, 32:64] = codes[:, 96:] = 1
        scales[-1] = 2.0**118
        w = w._replace(codes=codes, scales=scales)
        x = np.ones((m, 128), np.float32)
        x[m // 2 :] *= np.float32(2.0**5)
        for bias in (None, cases.floats(2, (n,), 1e38)):
            y = qkernels.linear(x, packed(w), bias, **mode)
            assert_same(y, cases.oracle(ref.linear, x, w, bias, **mode))
            assert np.isfinite(y).all()


@BY_MODE
def test_bounds_do_not_hide_an_overflow(isa, mode):
    """What a clamp or an activation makes of the true value, not of an infinity on the way to it."""
    w = scaled(weight(1, 18, 96, "int4", 32), [-124, -120, -122])
    x = sized(cases.floats(2, (5, 96)), 127)
    plain = qkernels.linear(x, packed(w), **mode)
    assert np.isfinite(plain).all() and plain.min() < -6 and plain.max() > 6
    for activation in ("relu", "relu6", (-5.0, math.inf), (-math.inf, -1.0)):
        low, high = {"relu": (0, math.inf), "relu6": (0, 6)}.get(activation, activation)
        y = qkernels.linear(x, packed(w), activation=activation, **mode)
        assert_same(y, np.clip(plain, np.float32(low), np.float32(high)))
    for name in ("gelu", "silu"):
        y = qkernels.linear(x, packed(w), activation=name, **mode)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(y, ref.weights.SMOOTH[name](plain), rtol=1e-6, atol=2.0**-126)


@BY_MODE
@pytest.mark.parametrize("activation", [None, "relu6", "gelu", "silu", (-1.0, 3e38)], ids=str)
def test_results_beyond_float32(isa, mode, activation):
    """Infinities of the right sign, and what the activation makes of them; the bias may bring one back."""
    w = scaled(weight(1, 18, 64, "int8", 32), 10)
    x = sized(np.sign(cases.floats(2, (4, 64))), 123)
    bias = np.full(18, -np.finfo(np.float32).max)
    for shift in (None, bias, -bias):
        y = qkernels.linear(x, packed(w), shift, activation=activation, **mode)
        assert not np.isnan(y).any()
        want = cases.oracle(ref.linear, x, w, shift, activation=activation, **mode)
        if activation in ("gelu", "silu"):
            np.testing.assert_allclose(y, want, rtol=1e-6)
        else:
            assert_same(y, want)


def of_kind(kind, w, k):
    """The arguments of a QuantizedWeight that transforms x, and the same for the oracle."""
    spread = 130 if kind == "scaled far" else 9
    scales = sized(cases.scales(3, (k,)), cases.ints(4, (k,), -spread, spread))
    options = {"seed": 5} if kind == "rotated" else {"input_scales": scales}
    name = w.format or f"int{w.bits}"
    made = qkernels.QuantizedWeight(name, w.codes, w.scales, w.zero_points, w.group_size, levels=w.table, **options)
    return made, options


@BY_MODE
@pytest.mark.parametrize("kind", ["rotated", "scaled", "scaled far"])
def test_transformed_inputs(isa, kind, mode):
    """Rotations and input scales lose nothing either: rows of every size, side by side, at every size of weight."""
    for k, group_size in [(160, 32), (128, None), (33, None)]:
        plain = weight(1, 18, k, "int4", group_size)
        x = cases.floats(2, (len(SIZES) + 2, k))
        x[: len(SIZES)] = sized(x[: len(SIZES)], np.reshape(SIZES, (-1, 1)))
        x[-1] = 0
        for scale in SCALES:
            w = scaled(plain, scale)
            qw, options = of_kind(kind, w, k)
            y = qkernels.linear(x, qw, **mode)
            assert_same(y, cases.oracle(ref.linear, x, w, **options, **mode), (k, scale))
            rows = x.astype(np.float64) * options.get("input_scales", np.float64(1))
            if kind == "rotated":  # exact enough where float32 holds it, since it is linear
                size = np.maximum(np.abs(x).max(axis=1, keepdims=True), 2.0**-149).astype(np.float64)
                rows = ref.hadamard((x / size).astype(np.float32), seed=5) * size
            assert_right(y, rows, w, mode)
            assert_same(qkernels.linear(x[:1], qw, **mode), y[:1])  # a row is by itself
            with qkernels.num_threads(3):
                assert_same(qkernels.linear(np.tile(x, (9, 1)), qw, **mode), np.tile(y, (9, 1)))


@BY_MODE
@pytest.mark.parametrize("kind", ["plain", "rotated", "scaled"])
def test_rows_that_are_not_finite_are_refused(isa, kind, mode):
    w = weight(1, 18, 64, "int4", 32)
    qw = packed(w) if kind == "plain" else of_kind(kind, w, 64)[0]
    for bad in (np.nan, np.inf, -np.inf):
        for size in (-149, 0, 127):
            x = sized(cases.floats(2, (3, 64)), size)
            x[1, 40] = bad
            raises(ValueError, "x", qkernels.linear, x, qw, **mode)


def test_transforms_of_no_values(isa):
    for options in ({"seed": 1}, {"input_scales": np.zeros(0, np.float32)}):
        qw = qkernels.QuantizedWeight("int4", np.zeros((3, 0), np.uint8), np.ones(3, np.float32), **options)
        bias = np.float32([1, 2, 3])
        assert_same(qkernels.linear(np.zeros((2, 0), np.float32), qw, bias), np.stack([bias, bias]))


@pytest.mark.parametrize("kind", ["rotated", "scaled", "scaled far"])
def test_dequantized_on_the_way_back(isa, kind):
    """Sums of a rotation, and products with a scale, may overflow where what they lead to does not."""
    for format, group_size in [("int8", None), ("int4", 32), ("codebook4", 64)]:
        for size in (0, 64, 110, 120, 126):
            w = scaled(weight(1, 9, 128, format, group_size), size)
            qw, options = of_kind(kind, w, 128)
            true = wide(w) * options.get("input_scales", np.float64(1))
            if kind == "rotated":
                true = ref.hadamard(sized(true, -size).astype(np.float32), seed=5, inverse=True) * np.float64(2.0**size)
            got = qw.dequantize()
            room = np.abs(true) if kind != "rotated" else np.abs(true).max()
            assert np.isfinite(got[np.abs(true) < LARGEST * (1 - 1e-6)]).all()
            assert np.isinf(got[np.abs(true) > LARGEST * (1 + 1e-6)]).all()
            near = np.isfinite(got)
            assert (np.abs(got - true) <= 1e-5 * room + 2.0**-149)[near].all()
            assert_same(qw.dequantizer()(slice(2, 5)), got[2:5])
