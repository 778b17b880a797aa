"""StaticLinear against the oracle, alone and in a chain of 8-bit layers from observed activations."""

import copy
import itertools
import pickle

import cases
import numpy as np
import pytest
from cases import assert_same, raises

import qkernels
from qkernels import QParams, _core, ptq, ref
from qkernels.calibration import HistogramObserver, InputStatistics, MinMaxObserver
from qkernels.static import StaticLinear

SHAPES = [(1, 1, 1), (5, 17, 33), (2, 64, 70), (0, 3, 5), (3, 0, 5), (3, 4, 0), (33, 9, 128)]


def observed(x, dtype="uint8", **options):
    return MinMaxObserver().observe(x).qparams(dtype, **options)


def layer_in_float(m, n, k):
    """Weight, bias, x and y."""
    w, bias, x = cases.floats(1, (n, k), 0.4), cases.floats(2, (n,), 0.7), cases.floats(3, (m, k), 3.0)
    return w, bias, x, x @ w.T + bias


@pytest.mark.parametrize("types", [*itertools.product(["uint8", "int8"], ["uint8", "int8", None])], ids=str)
def test_oracle(isa, types):
    for (m, n, k), activation in itertools.product(SHAPES, (None, "relu", "relu6", (-0.5, 1.25))):
        w, bias, x, y = layer_in_float(m, n, k)
        options = {"input": observed(np.append(x, np.float32(-1)), types[0]), "activation": activation}
        if types[1]:
            options["output"] = observed(np.append(y, np.float32(2)), types[1])
        for more in ({}, {"bias": bias}) if activation else ({"bias": bias, "method": "percentile"},):
            layer = StaticLinear(w, **options, **more)
            want = cases.oracle(ref.static_linear, x, w, **options, **more)
            assert_same(layer(x), want, (m, n, k, options, more))
            q = qkernels.quantize(x, options["input"].scale, options["input"].zero_point, dtype=types[0])
            assert_same(layer(q), want)
            assert layer(x).dtype == np.dtype(types[1] or np.float32)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_input_scales(isa, dtype):
    """A column of large values, made smaller: as the oracle bit for bit, and nearer to the float layer than without."""
    w, bias, x, _ = layer_in_float(40, 17, 70)
    x[:, 3] *= 100
    scales, _ = ptq.smooth([w], InputStatistics(70).observe(x))
    smoothed = {"input": observed(x / scales, dtype), "input_scales": 1 / scales}
    layer = StaticLinear(w, bias, **smoothed)
    assert_same(layer(x), ref.static_linear(x, w, bias, **smoothed))
    assert_same(layer(x.reshape(4, 10, 70)), layer(x).reshape(4, 10, 17))
    assert_same(pickle.loads(pickle.dumps(layer)).input_scales, 1 / scales)
    errors = [np.square(made(x) - (x.astype(np.float64) @ w.T + bias)).mean()
              for made in (layer, StaticLinear(w, bias, input=observed(x, dtype)))]
    assert errors[0] < errors[1] / 20
    for bad in (np.ones(69, np.float32), -scales, scales * np.float32(np.nan)):
        raises(ValueError, "input_scales", StaticLinear, w, input=layer.input, input_scales=bad)
    raises(TypeError, "input_scales", StaticLinear, w, input=layer.input, input_scales=scales.astype(np.float64))
    for size, bad in [(1e10, 1e-30), (1e-10, 1e-40), (0, 1e-45)]:  # the weight, or the scales of columns, overflow
        raises(ValueError, "input_scales", StaticLinear, w * np.float32(size), input=layer.input,
               input_scales=np.full_like(scales, bad))


def test_shapes_and_strides_of_x(isa):
    w, bias, x, y = layer_in_float(12, 7, 20)
    layer = StaticLinear(w, bias, input=observed(x), output=observed(y))
    want = layer(x)
    assert_same(layer(x.reshape(2, 6, 20)), want.reshape(2, 6, 7))
    assert_same(layer(x[0]), want[0])
    assert layer(np.zeros((3, 0, 20), np.float32)).shape == (3, 0, 7)
    for view in cases.strided(x).values():
        assert_same(layer(view), want)
    for view in cases.strided(w).values():
        assert_same(StaticLinear(view, bias, input=layer.input, output=layer.output)(x), want)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert_same(again(x), want)
        assert (again.shape, again.nbytes, repr(again)) == (layer.shape, layer.nbytes, repr(layer))
    assert "7x20, uint8 to uint8" in repr(layer) and layer.shape == (7, 20)
    assert layer.nbytes == 7 * 20 + 4 * 7 + 4 * 7
    scaled = StaticLinear(w, input=observed(x), input_scales=np.ones(20, np.float32))
    assert scaled.nbytes == 7 * 20 + 4 * 7 + 4 * 20


NETWORK = [(96, 40), (64, 96), (10, 64)]


def network():
    """Weights and biases of three layers that keep the size of values about as it is."""
    weights = [cases.floats(10 + i, shape, (6 / shape[1]) ** 0.5) for i, shape in enumerate(NETWORK)]
    return weights, [cases.floats(20 + i, shape[:1], 0.2) for i, shape in enumerate(NETWORK)]


def float_activations(x, weights, biases):
    """The network's input and what each layer makes of it; a ReLU behind all but the last."""
    values = [x]
    for i, (w, bias) in enumerate(zip(weights, biases)):
        y = values[-1] @ w.T + bias
        values.append(np.maximum(y, 0) if i < len(weights) - 1 else y)
    return values


@pytest.mark.parametrize("method, decibels", [("minmax", 36), ("percentile", 35), ("mse", 36), ("entropy", 35)])
def test_three_layers_of_bytes(isa, method, decibels):
    weights, biases = network()
    observers = [HistogramObserver() for _ in range(4)]
    for batch in range(8):
        for observer, values in zip(observers, float_activations(cases.floats(30 + batch, (64, 40)), weights, biases)):
            observer.observe(values)
    places = [observer.qparams("uint8", method=method) for observer in observers]
    assert all(places[i].zero_point == 0 for i in (1, 2)) and 0 < places[3].zero_point < 255
    options = [{"input": places[i], "output": places[i + 1], "activation": "relu" if i < 2 else None} for i in range(3)]
    layers = [StaticLinear(w, bias, **o) for w, bias, o in zip(weights, biases, options)]

    x = cases.floats(40, (200, 40))
    got = want = x
    for layer, w, bias, o in zip(layers, weights, biases, options):
        got, want = layer(got), ref.static_linear(want, w, bias, **o)
        assert got.dtype == np.uint8
        assert_same(got, want)
    exact = float_activations(x, weights, biases)[-1]
    left = qkernels.dequantize(got, places[3].scale, places[3].zero_point) - exact
    assert -10 * np.log10(np.square(left).mean() / np.square(exact).mean()) > decibels


@pytest.mark.any_isa
def test_bad_layers():
    w, bias, x, y = layer_in_float(3, 4, 5)
    good = observed(x)
    for bad in (w.astype(float), w.astype(np.int8), None):
        raises(TypeError, "weight", StaticLinear, bad, input=good)
    for bad in (w[0], w[None], w * np.float32(np.nan), w + np.float32(np.inf)):
        raises(ValueError, "weight", StaticLinear, bad, input=good)
    for name in ("input", "output"):
        others = {"input": good} if name == "output" else {}
        for bad in (0.1, (0.1, 0, "uint8", None, None)):
            raises(TypeError, name, StaticLinear, w, **others, **{name: bad})
        for bad in (observed(x, "uint4"), MinMaxObserver(axis=0).observe(x).qparams()):
            raises(ValueError, name, StaticLinear, w, **others, **{name: bad})
    for bad in (bias[:3], bias * np.float32(np.inf), np.float32(1)):
        raises(ValueError, "bias", StaticLinear, w, bad, input=good)
    raises(TypeError, "bias", StaticLinear, w, np.arange(4), input=good)
    raises(ValueError, "activation", StaticLinear, w, input=good, activation="gelu")
    raises(ValueError, "method", StaticLinear, w, input=good, method="max")
    for scale, zero_point in [(0.0, 0), (-1.0, 0), (np.inf, 0), (np.nan, 0), (1.0, 128), (1.0, -129)]:
        bad = QParams(np.float32(scale), zero_point, "int8", None, None)
        raises(ValueError, "input", StaticLinear, w, input=bad)
        raises(ValueError, "output", StaticLinear, w, input=good, output=bad)
    for scale, size in [(1e-45, 0.1), (3e38, 3e38)]:
        tiny_or_huge = QParams(np.float32(scale), np.uint8(0), "uint8", None, None)
        raises(ValueError, "input", StaticLinear, w * np.float32(size), input=tiny_or_huge)


@pytest.mark.any_isa
def test_bad_x():
    w, bias, x, y = layer_in_float(3, 4, 5)
    layer = StaticLinear(w, bias, input=observed(x))
    for bad in (x.astype(float), x.astype(np.int8), x.astype(int)):
        raises(TypeError, "x", layer, bad)
    for bad in (x[:, :4], x[0, 0], x * np.float32(np.nan)):
        raises(ValueError, "x", layer, bad)
    raises(TypeError, "x", layer, None)


def test_made_for_another_isa(isa):
    """It is refused; a pickle of it serves on every machine."""
    w, bias, x, y = layer_in_float(3, 4, 5)
    layer = StaticLinear(w, bias, input=observed(x))
    want, own = layer(x), layer._weight
    for layout in _core.b_layouts().values():
        layer._weight = own.repacked(layout)
        assert_same(pickle.loads(pickle.dumps(layer))(x), want, layout)
        if layout == own.layout:
            assert_same(layer(x), want, layout)
        else:
            raises(ValueError, "b_q", layer, x)
