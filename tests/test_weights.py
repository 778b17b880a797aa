"""quantize_weight(w, "int8") and linear against the oracle."""

import itertools
import pickle

import cases
import numpy as np
import pytest
from cases import assert_same, raises

import qkernels
from qkernels import ref

SHAPES = [(1, 1), (17, 33), (64, 65), (35, 128), (5, 0), (0, 5)]


@pytest.mark.parametrize("n, k", SHAPES)
def test_quantize_weight(isa, n, k):
    w = cases.floats(1, (n, k), 0.3)
    if n > 3:
        w[2] = 0
    q, scales = ref.quantize_weight_int8(w)
    qw = qkernels.quantize_weight(w, "int8")
    assert (qw.shape, qw.format, qw.group_size) == ((n, k), "int8", None)
    assert_same(qw.dequantize(), ref.dequantize(q, scales, axis=0))
    assert qw.nbytes >= n * k + 4 * n
    if n * k:
        assert qw.bits_per_weight == 8 * qw.nbytes / (n * k)
    assert_same(qkernels.quantize_weight(w).dequantize(), qw.dequantize())
    for view in cases.strided(w).values():
        assert_same(qkernels.quantize_weight(view).dequantize(), qw.dequantize())


def test_linear(isa):
    leads = [(1,), (7,), (2, 3), (), (0,), (2, 0, 3)]
    for (n, k), lead in itertools.product(SHAPES, leads):
        layer(n, k, lead)


def layer(n, k, lead):
    w, x, bias = (
        cases.floats(1, (n, k), 0.3),
        cases.floats(2, lead + (k,), 5.0),
        cases.floats(3, (n,)),
    )
    q, scales = ref.quantize_weight_int8(w)
    qw = qkernels.quantize_weight(w, "int8")
    for shift in (None, bias):
        for activation in (None, "relu", (-0.25, 0.5)):
            want = cases.oracle(ref.linear, x, q, scales, shift, activation)
            assert_same(qkernels.linear(x, qw, shift, activation=activation), want, (n, k, lead))
    out = np.empty(lead + (n,), np.float32)
    assert qkernels.linear(x, qw, bias, out=out) is out
    assert_same(out, ref.linear(x, q, scales, bias))


def test_linear_takes_strided_x_and_out(isa):
    w, x = cases.floats(1, (18, 33)), cases.floats(2, (2, 5, 33))
    qw, want = qkernels.quantize_weight(w), ref.linear(x, *ref.quantize_weight_int8(w))
    for name, view in cases.strided(x).items():
        assert_same(qkernels.linear(view, qw), want, name)
    for name, out in cases.strided(np.zeros_like(want)).items():
        if name != "read-only":
            assert qkernels.linear(x, qw, out=out) is out
            assert_same(out, want, name)


def test_rows_have_scales_of_their_own(isa):
    """A huge row must not spoil its small neighbor, and a row of zeros gives the bias."""
    w = cases.floats(1, (9, 64))
    x = np.stack(
        [cases.floats(2, (64,), 1e4), cases.floats(3, (64,), 1e-4), np.zeros(64, np.float32)]
    )
    bias = cases.floats(4, (9,))
    qw = qkernels.quantize_weight(w)
    got = qkernels.linear(x, qw)
    exact = x.astype(np.float64) @ w.T.astype(np.float64)
    for y, z in zip(got[:2], exact):
        assert np.abs(y - z).max() < 0.02 * np.abs(z).max()
    assert_same(qkernels.linear(x, qw, bias)[2], bias)
    assert_same(got[:1], qkernels.linear(x[:1], qw))


def test_weight_survives_pickle_and_state(isa):
    w, x = cases.floats(1, (18, 33)), cases.floats(2, (4, 33))
    qw = qkernels.quantize_weight(w)
    state = qw.to_state()
    assert state and all(isinstance(value, np.ndarray) for value in state.values())
    for again in (pickle.loads(pickle.dumps(qw)), type(qw).from_state(state)):
        assert (again.shape, again.format, again.nbytes) == (qw.shape, qw.format, qw.nbytes)
        assert_same(again.dequantize(), qw.dequantize())
        assert_same(qkernels.linear(x, again), qkernels.linear(x, qw))


def test_formats_of_later_work_say_so():
    w = np.ones((4, 32), np.float32)
    for options in ({"format": "int4"}, {"format": "nf4"}, {"format": "int8", "group_size": 16}):
        with pytest.raises(NotImplementedError):
            qkernels.quantize_weight(w, **options)
    with pytest.raises(NotImplementedError, match="^activations"):
        qkernels.linear(w, qkernels.quantize_weight(w), activations="float32")


@pytest.mark.filterwarnings("error")
def test_bad_input(isa):
    n, k = 5, 4
    w, x = cases.floats(1, (n, k)), cases.floats(2, (3, k))
    qw = qkernels.quantize_weight(w)
    for bad in (w.astype(np.float64), x > 0, w.astype(w.dtype.newbyteorder()), None, "w"):
        raises(TypeError, "w", qkernels.quantize_weight, bad)
        raises(TypeError, "x", qkernels.linear, bad, qw)
    for bad in (w[0], w[None], w[0, 0, None].reshape(())):
        raises(ValueError, "w", qkernels.quantize_weight, bad)
    for bad in (np.nan, np.inf):
        spoiled = w.copy()
        spoiled[2, 1] = bad
        raises(ValueError, "w", qkernels.quantize_weight, spoiled)
        spoiled = x.copy()
        spoiled[2, 3] = bad
        raises(ValueError, "x", qkernels.linear, spoiled, qw)
    for bad in ("int3", "", None, 8):
        raises(ValueError, "format", qkernels.quantize_weight, w, bad)
    raises(TypeError, "qw", qkernels.linear, x, w)
    raises(ValueError, "x", qkernels.linear, x[:, :3], qw)
    raises(ValueError, "x", qkernels.linear, x[0, 0, None].reshape(()), qw)
    raises(ValueError, "bias", qkernels.linear, x, qw, np.ones(n + 1, np.float32))
    raises(ValueError, "bias", qkernels.linear, x, qw, np.full(n, np.nan, np.float32))
    raises(ValueError, "activation", qkernels.linear, x, qw, activation="gelu")
    raises(ValueError, "activations", qkernels.linear, x, qw, activations="int3")
    raises(ValueError, "out", qkernels.linear, x, qw, out=np.empty((3, n + 1), np.float32))
    raises(TypeError, "out", qkernels.linear, x, qw, out=np.empty((3, n)))
    square = cases.floats(3, (4, 4))
    raises(ValueError, "out", qkernels.linear, square, qkernels.quantize_weight(square), out=square)
