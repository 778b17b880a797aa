"""Stacks of weights: each is what quantize_weight makes of it alone; states, sizes, and what is refused."""

import io
import pickle

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from file_cases import assert_same_value

import qkernels
from qkernels import QuantizedWeightStack
from qkernels.calibration import InputStatistics
from qkernels.methods import CALIBRATED
from qkernels.mixed import Plan

E, N, K = 3, 18, 70
W = cases.floats(1, (E, N, K))
X = [cases.floats(2 + e, (40 * e + 1, K)) for e in range(E)]
ALL = [
    {"format": "int8"}, {"format": "int4", "group_size": 32, "symmetric": False}, {"format": "int2", "method": "hqq"},
    {"format": "nf4", "group_size": 32, "scale_dtype": "float32"}, {"format": "codebook4"}, {"format": "binary"},
    {"format": "codebook4", "codebook": "row"}, {"format": "ternary", "rotate": True, "seed": 2**64 - 1},
    {"format": "trellis2"}, {"format": "trellis3", "window": 12, "rotate": True},
    *({"format": "int4", "group_size": 32, "method": method} for method in CALIBRATED),
]


def through_npz(state):
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return np.load(file)


@pytest.mark.parametrize("options", ALL, ids=lambda options: "-".join(map(str, options.values())))
def test_each_is_as_alone(isa, options):
    is_calibrated = options.get("method") in CALIBRATED
    seen = [InputStatistics(K).observe(x) for x in X] if is_calibrated else [None] * E
    stack = qkernels.quantize_weight(W, **options, calibration=seen if is_calibrated else None)
    alone = [qkernels.quantize_weight(w, **options, calibration=own) for w, own in zip(W, seen, strict=True)]
    assert isinstance(stack, QuantizedWeightStack) and stack.shape == (E, N, K) and len(stack) == E
    for got, want in zip(stack, alone, strict=True):
        assert_same_value(got, want)
    assert_same(stack.dequantize(), np.stack([want.dequantize() for want in alone]))
    for name in ("format", "group_size", "symmetric", "window", "seed"):
        assert getattr(stack, name) == getattr(alone[0], name)
    state = stack.to_state()
    assert stack.nbytes == sum(array.nbytes for array in state.values())
    assert stack.bits_per_weight == 8 * stack.nbytes / W.size
    for again in (QuantizedWeightStack.from_state(through_npz(state)), pickle.loads(pickle.dumps(stack)),
                  QuantizedWeightStack(alone)):  # fmt: skip
        assert again.shape == stack.shape and again.nbytes == stack.nbytes
        for got, want in zip(again, alone, strict=True):
            assert_same_value(got, want)
    x = X[1]
    assert_same(qkernels.linear(x, stack[-1]), qkernels.linear(x, alone[-1]))


@pytest.mark.any_isa
def test_indices():
    stack = qkernels.quantize_weight(W)
    assert [stack[i] for i in range(E)] == list(stack) and stack[-E] is stack[0] and stack[np.int64(1)] is stack[1]
    for part in (slice(None), slice(1, None), slice(None, None, -2), slice(0, 1)):
        assert isinstance(stack[part], QuantizedWeightStack)
        assert_same(stack[part].dequantize(), stack.dequantize()[part])
    for bad in (E, -E - 1, np.int64(7)):
        with pytest.raises(IndexError):
            stack[bad]
    for bad in (1.0, None, "0", [0, 1], (0, 1)):
        with pytest.raises(TypeError):
            stack[bad]
    raises(ValueError, "weights", stack.__getitem__, slice(2, 2))
    raises(TypeError, "qw", qkernels.linear, X[0], stack)
    assert f"{E} like <QuantizedWeight {N}x{K} int8" in repr(stack)


@pytest.mark.any_isa
@pytest.mark.parametrize("method", CALIBRATED)
def test_calibration_of_some(method):
    """The others are rounded to nearest, as if they had been given alone."""
    options = {"format": "int4", "group_size": 32, "method": method}
    for without in range(E):
        given = [None if e == without else x for e, x in enumerate(X)]
        stack = qkernels.quantize_weight(W, **options, calibration=given)
        for e, got in enumerate(stack):
            other = {"method": "rtn"} if e == without else {"calibration": X[e]}
            assert_same_value(got, qkernels.quantize_weight(W[e], **(options | other)), e)
        assert stack.nbytes == sum(array.nbytes for array in stack.to_state().values())
        assert_same_value(pickle.loads(pickle.dumps(stack))[without], stack[without])


@pytest.mark.any_isa
def test_importance():
    of_each = cases.scales(3, W.shape, 1.0)
    for importance in (of_each, of_each[0], of_each[0, 0]):
        stack = qkernels.quantize_weight(W, "codebook4", importance=importance)
        for e, got in enumerate(stack):
            own = importance[e] if importance.ndim == 3 else importance
            assert_same_value(got, qkernels.quantize_weight(W[e], "codebook4", importance=own))


@pytest.mark.any_isa
def test_empty_matrices():
    for shape in ((2, 0, K), (2, N, 0), (1, 0, 0)):
        stack = qkernels.quantize_weight(np.zeros(shape, np.float32))
        assert stack.shape == shape == stack.dequantize().shape == pickle.loads(pickle.dumps(stack)).shape


@pytest.mark.any_isa
def test_refused_weights():
    assert "w: 1: contains NaN" in raises(ValueError, "w", qkernels.quantize_weight, np.stack(
        [W[0], np.full((N, K), np.nan, np.float32), W[0]]))
    for bad in (W[:0], W[None], W[0, 0]):
        raises(ValueError, "w", qkernels.quantize_weight, bad)
    raises(TypeError, "w", qkernels.quantize_weight, W.astype(np.float64))
    good = InputStatistics(K).observe(X[1])
    for bad in (None, good, [good] * 2, [good] * 4, [good, good, InputStatistics(K)],
                [good, good, InputStatistics(K - 1).observe(X[1][:, 1:])], X[1], [*X[:2], X[2][:, 1:]]):  # fmt: skip
        raises(ValueError, "calibration", qkernels.quantize_weight, W, "int4", method="gptq", calibration=bad)
    raises(TypeError, "calibration", qkernels.quantize_weight, W, "int4", method="gptq", calibration=[good, "x", good])


@pytest.mark.any_isa
def test_refused_stacks_and_states():
    one = qkernels.quantize_weight(W[0])
    others = [qkernels.quantize_weight(W[0][:-1]), qkernels.quantize_weight(W[0], "int4"), qkernels.quantize_weight(
        W[0], group_size=32), qkernels.quantize_weight(W[0], symmetric=False), qkernels.quantize_weight(
        W[0], rotate=True), qkernels.quantize_weight(W[0], scale_dtype="float32")]  # fmt: skip
    for other in others:
        assert "weights: 2: got <" in raises(ValueError, "weights", QuantizedWeightStack, [one, one, other])
    raises(ValueError, "weights", QuantizedWeightStack, [])
    for bad in ([one, None], [W[0]], [QuantizedWeightStack([one])]):
        raises(TypeError, "weights", QuantizedWeightStack, bad)
    state = QuantizedWeightStack([one, one]).to_state()
    for name, bad in [("shape", [2, N]), ("shape", [3, N, K]), ("shape", [0, N, K]), ("shape", [2**61, N, K]),
                      ("shape", [2, N, K + 1]), ("codes", state["codes"][0]), ("codes", state["codes"][:1]),
                      ("scales", state["scales"][:1]), ("scales", np.float16(1)), ("format", "int4")]:  # fmt: skip
        raises(ValueError, "state", QuantizedWeightStack.from_state, state | {name: np.array(bad)})
    raises(ValueError, "state", QuantizedWeightStack.from_state, one.to_state())
    raises(ValueError, "state", qkernels.QuantizedWeight.from_state, state)
    raises(TypeError, "state", QuantizedWeightStack.from_state, [one])


@pytest.mark.any_isa
def test_a_plan():
    plan, w = Plan({"experts": {"format": "int4", "group_size": 32, "method": "gptq"}}), {"experts": W}
    done = plan.quantize(w, calibration={"experts": X})
    assert_same(done["experts"].dequantize(), qkernels.quantize_weight(
        W, "int4", group_size=32, method="gptq", calibration=X).dequantize())
    assert plan.quantize(w, done=done) is done
    raises(ValueError, "done", Plan({"experts": {"format": "int8"}}).quantize, w, done=done)
