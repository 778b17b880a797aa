"""SmoothQuant, cross-layer equalization and bias correction: what they promise of float networks, exactly."""

import cases
import numpy as np
import pytest
from cases import assert_same, raises

import qkernels
from qkernels import ptq
from qkernels.statistics import InputStatistics

pytestmark = [pytest.mark.any_isa, pytest.mark.filterwarnings("error")]


def uneven(seed, shape):
    """Weights some rows and columns of which are a thousand times larger than others."""
    rows, columns = (2.0 ** cases.ints(seed + i, (n,), -5, 5) for i, n in enumerate(shape))
    return (cases.floats(seed, shape) * rows[:, None] * columns).astype(np.float32)


def relu_net(x, weights, biases):
    """In float64."""
    x = x.astype(np.float64)
    for w, b in zip(weights[:-1], biases[:-1]):
        x = np.maximum(x @ w.T + (0 if b is None else b), 0)
    return x @ weights[-1].T + (0 if biases[-1] is None else biases[-1])


def assert_close(got, want):
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("alpha", [0, 0.25, 0.5, 0.85, 1])
def test_smooth_keeps_products(alpha):
    x, weights = uneven(1, (50, 24)), [uneven(2, (10, 24)), uneven(3, (7, 24))]
    scales, smoothed = ptq.smooth(weights, InputStatistics(24).observe(x), alpha)
    largest = np.abs(np.concatenate(weights)).max(axis=0).astype(np.float64)
    np.testing.assert_allclose(scales, np.abs(x).max(axis=0) ** float(alpha) / largest ** (1 - alpha), rtol=1e-6)
    assert scales.dtype == np.float32 and all(w.dtype == np.float32 for w in smoothed)
    for w, new in zip(weights, smoothed):
        assert_close((x / scales).astype(np.float64) @ new.T, x.astype(np.float64) @ w.T)


def test_smooth_makes_ranges_meet():
    """With alpha 1/2 the ranges of inputs and of weights are the same in each column."""
    x, w = uneven(4, (50, 24)), uneven(5, (10, 24))
    scales, (smoothed,) = ptq.smooth([w], InputStatistics(24).observe(x))
    np.testing.assert_allclose(np.abs(x / scales).max(axis=0), np.abs(smoothed).max(axis=0), rtol=1e-5)


def test_smooth_leaves_unused_columns():
    x, w = cases.floats(6, (9, 4)) + np.float32(2), cases.floats(7, (3, 4)) + np.float32(2)
    x[:, 1] = 0
    w[:, 2] = 0
    x[:, 3] = np.float32(1e-45)  # less than any normal number
    w[:, 3] = np.float32(1e-45)
    for alpha in (0, 0.5, 1):
        scales, _ = ptq.smooth([w], InputStatistics(4).observe(x), alpha)
        assert np.isfinite(scales).all() and (scales > 0).all() and (scales[1:3] == 1).all()


def test_smooth_helps_activations_with_outliers():
    """What it is for: int8 activations quantized per row."""
    x, w = cases.floats(8, (64, 128)), cases.floats(9, (32, 128))
    x[:, 5] *= 200
    scales, (smoothed,) = ptq.smooth([w], InputStatistics(128).observe(x))
    want = x @ w.T
    error = [np.square(qkernels.linear(rows, qkernels.quantize_weight(matrix, "int8")) - want).mean()
             for rows, matrix in ((x, w), (x / scales, smoothed))]
    assert error[1] < error[0] / 4


def test_scales_fold_into_what_comes_before():
    before, bias, w = uneven(10, (24, 16)), cases.floats(11, (24,)), uneven(12, (5, 24))
    x = cases.floats(13, (40, 16))
    want = relu_net(x, [before, w], [bias, None])
    hidden = np.maximum(x @ before.T + bias, 0)
    scales, (smoothed,) = ptq.smooth([w], InputStatistics(24).observe(hidden))
    before, bias = ptq.divide_outputs(scales, before, bias)
    assert before.dtype == bias.dtype == np.float32
    assert_close(relu_net(x, [before, smoothed], [bias, None]), want)


@pytest.mark.parametrize("sizes", [(8, 16, 4), (6, 12, 20, 9, 3), (5, 4)])
@pytest.mark.parametrize("has_biases", [False, True])
def test_equalize(sizes, has_biases):
    weights = [uneven(20 + i, shape) for i, shape in enumerate(zip(sizes[1:], sizes))]
    biases = [cases.floats(30 + i, (n,)) if has_biases and i != 1 else None for i, n in enumerate(sizes[1:])]
    new_weights, new_biases = ptq.equalize(weights, biases if has_biases else None)
    assert [b is None for b in new_biases] == [b is None for b in biases]
    for first, second in zip(new_weights, new_weights[1:]):
        np.testing.assert_allclose(np.abs(first).max(axis=1), np.abs(second).max(axis=0), rtol=1e-6)
    x = cases.floats(40, (50, sizes[0]))
    assert_close(relu_net(x, new_weights, new_biases), relu_net(x, weights, biases))


def test_equalize_of_two_layers_is_the_published_formula():
    first, second = uneven(50, (12, 8)), uneven(51, (5, 12))
    bias = cases.floats(52, (12,))
    (got, _), (got_bias, _) = ptq.equalize([first, second], [bias, None])
    coming, leaving = np.abs(first).max(axis=1), np.abs(second).max(axis=0)
    s = np.sqrt(coming.astype(np.float64) * leaving) / leaving  # which the outputs are multiplied by 1 / s with
    np.testing.assert_allclose(got, first * (np.sqrt(coming * leaving.astype(np.float64)) / coming)[:, None], rtol=1e-6)
    np.testing.assert_allclose(got_bias, bias / s, rtol=1e-6)


def test_equalize_leaves_unused_channels():
    first, second = uneven(60, (6, 8)), uneven(61, (5, 6))
    first[2] = 0
    second[:, 4] = 0
    (got_first, got_second), _ = ptq.equalize([first, second])
    assert_same(got_second[:, 2], second[:, 2])
    assert_same(got_first[4], first[4])
    assert ptq.equalize([np.zeros((0, 3), np.float32), np.zeros((2, 0), np.float32)])[0][1].shape == (2, 0)


@pytest.mark.parametrize("bias", [None, cases.floats(70, (16,))])
def test_corrected_bias_has_no_mean_error(bias):
    x, w = cases.floats(71, (500, 64)) + np.float32(0.7), cases.floats(72, (16, 64))
    statistics = InputStatistics(64).observe(x)
    for format in ("int4", "int2"):
        qw = qkernels.quantize_weight(w, format, group_size=32, symmetric=False)
        corrected = ptq.correct_bias(bias, w, qw, statistics)
        assert corrected.dtype == np.float32
        x64, old = x.astype(np.float64), 0 if bias is None else bias
        error = x64 @ qw.dequantize().T + corrected - (x64 @ w.T + old)
        uncorrected = x64 @ qw.dequantize().T - x64 @ w.T
        assert np.abs(error.mean(axis=0)).max() < 1e-5 * np.abs(uncorrected.mean(axis=0)).max()
        assert_same(ptq.correct_bias(bias, w, qw.dequantize(), statistics), corrected)


def test_bad_input():
    w, seen = cases.floats(80, (3, 4)), InputStatistics(4).observe(cases.floats(81, (5, 4)))
    nan = np.where(np.arange(4) == 2, np.float32(np.nan), w)
    raises(ValueError, "weights", ptq.smooth, [], seen)
    raises(TypeError, "weights", ptq.smooth, [w.astype(np.float64)], seen)
    raises(ValueError, "weights", ptq.smooth, [w, w[:, :3]], seen)
    raises(ValueError, "weights", ptq.smooth, [nan], seen)
    raises(ValueError, "weights", ptq.smooth, w, seen)  # one matrix, not a list of them
    raises(TypeError, "statistics", ptq.smooth, [w], seen.hessian)
    raises(ValueError, "statistics", ptq.smooth, [w], InputStatistics(4))
    for alpha in (-0.1, 1.1, float("nan")):
        raises(ValueError, "alpha", ptq.smooth, [w], seen, alpha)
    raises(TypeError, "alpha", ptq.smooth, [w], seen, "0.5")

    ones = np.ones(3, np.float32)
    for scales in (ones * 0, -ones, ones * np.float32(np.inf), np.ones((1, 3), np.float32)):
        raises(ValueError, "scales", ptq.divide_outputs, scales, w)
    raises(ValueError, "parameters", ptq.divide_outputs, ones, w.T)
    raises(TypeError, "parameters", ptq.divide_outputs, ones, w.astype(np.int32))

    raises(ValueError, "weights", ptq.equalize, [])
    raises(ValueError, "weights", ptq.equalize, [w, w])
    raises(ValueError, "weights", ptq.equalize, [nan])
    raises(ValueError, "biases", ptq.equalize, [w], [ones, ones])
    raises(ValueError, "biases", ptq.equalize, [w], [ones[:2]])

    raises(ValueError, "w", ptq.correct_bias, None, w[0], w, seen)
    raises(ValueError, "w", ptq.correct_bias, None, w[:, :3], w[:, :3], seen)
    raises(ValueError, "quantized", ptq.correct_bias, None, w, w[:2], seen)
    raises(ValueError, "bias", ptq.correct_bias, ones[:2], w, w, seen)
    raises(TypeError, "statistics", ptq.correct_bias, None, w, w, None)


def test_results_beyond_float32_are_refused():
    w, huge = np.ones((3, 4), np.float32), np.full((3, 4), 3e38, np.float32)
    seen = InputStatistics(4).observe(np.full((5, 4), 1e9, np.float32))
    raises(ValueError, "weights", ptq.smooth, [huge], seen, 1)
    raises(ValueError, "parameters", ptq.divide_outputs, np.full(3, 1e-9, np.float32), w, huge)
    raises(ValueError, "biases", ptq.equalize, [w * np.float32(1e-30), w.T.copy()], [huge[:, 0].copy(), None])
    raises(ValueError, "bias", ptq.correct_bias, None, huge, w, seen)
