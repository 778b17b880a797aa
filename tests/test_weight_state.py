"""Weights that come from elsewhere: states, pickles, ready-made integers."""

import copy
import io
import itertools
import pickle

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from conftest import ISAS
from weight_cases import KINDS, assert_same_weight, packed, weight

import qkernels
from qkernels import QuantizedWeight, _core


def test_state_and_pickle(isa):
    x = cases.floats(2, (4, 100))
    for seed, (format, group_size, symmetric, scale_dtype) in enumerate(KINDS):
        w = weight(seed, 18, 100, format, group_size, symmetric, scale_dtype)
        qw = packed(w)
        state = qw.to_state()
        assert all(isinstance(value, np.ndarray) for value in state.values())
        assert ("zero_points" in state) != symmetric
        file = io.BytesIO()
        np.savez(file, **state)
        file.seek(0)
        loaded = np.load(file, allow_pickle=False)
        for again in (pickle.loads(pickle.dumps(qw)), copy.deepcopy(qw), QuantizedWeight.from_state(state),
                      QuantizedWeight.from_state(loaded)):  # fmt: skip
            assert (again.shape, again.format, again.nbytes) == (qw.shape, qw.format, qw.nbytes)
            assert_same_weight(again, w)
            assert_same(qkernels.linear(x, again), qkernels.linear(x, qw))


@pytest.mark.parametrize("n, k", [(0, 5), (5, 0), (0, 0), (3, 1), (2, 7)])
def test_small_states(isa, n, k):
    for group_size in (None, 32):
        w = weight(1, n, k, "int2", group_size, False)
        again = QuantizedWeight.from_state(packed(w).to_state())
        assert again.shape == (n, k) and again.group_size == group_size
        assert_same(again.dequantize(), w.dequantize())


def test_packed_in_another_layout(isa):
    """It is refused, but for the own one; states and pickles of it serve on every machine."""
    w, x = weight(1, 70, 100, "int4", 32, False), cases.floats(2, (3, 100))
    own, other = packed(w), packed(w)
    want = qkernels.linear(x, own)
    for layout in _core.weight_layouts().values():
        other.packed = own.repacked(layout)
        assert_same_weight(other, w, layout)
        assert pickle.dumps(other) == pickle.dumps(own)
        assert_same(qkernels.linear(x, pickle.loads(pickle.dumps(other))), want, layout)
        if layout == own.packed.layout:
            assert_same(qkernels.linear(x, other), want, layout)
        else:
            assert "ISA" in raises(ValueError, "qw", qkernels.linear, x, other)


def test_packed_under_another_isa(select_isa):
    """Kernels of one layout take what the others packed, and give the same results."""
    w, x = weight(1, 70, 100, "int4", 32, False), cases.floats(2, (3, 100))
    made = {}
    for name in ISAS:
        select_isa(name)
        made[name] = packed(w)
    want = qkernels.linear(x, made[ISAS[-1]])
    for name, other in itertools.product(ISAS, made.values()):
        select_isa(name)
        assert pickle.dumps(other) == pickle.dumps(made[name])
        if other.packed.layout == _core.weight_layout():
            assert_same(qkernels.linear(x, other), want, name)
        else:
            raises(ValueError, "qw", qkernels.linear, x, other)


@pytest.mark.filterwarnings("error")
def test_hostile_states(isa):
    good = packed(weight(1, 5, 100, "int4", 32, False)).to_state()
    for bad in (None, [], 3, "state", list(good.items())):
        raises(TypeError, "state", QuantizedWeight.from_state, bad)
    for name in good:
        if name != "zero_points":
            text = raises(ValueError, "state", QuantizedWeight.from_state, {k: v for k, v in good.items() if k != name})
            assert name in text
    raises(ValueError, "state", QuantizedWeight.from_state, {**good, "other": np.zeros(1)})
    scales, codes = good["scales"], good["codes"]

    def with_first(array, value):
        array = array.copy()
        array[0, 0] = value
        return array

    wrong = {
        "version": [0, 2, -1, 1.0, "1", np.ones(2, int), None, np.array(True)],
        "format": ["int3", "mxfp4", 4, ["int4", "int4"], np.array(["int4"]), "int8", "int2", b"int4", None],
        "shape": [[5], [5, 100, 1], [5, 99 + 3], [4, 100], [-5, 100], [2**62, 100], [5.0, 100.0], 500, [[5, 100]],
                  "5x", [True, True], [5, 2**63], [0, 0], None],
        "group_size": [33, -32, 64, 96, 1.5, [32], "32", 2**70, 0, None],
        "codes": [codes[:4], codes[:, :-1], codes.view(np.int8), codes.astype(np.uint16), codes[None], codes.ravel(),
                  codes.astype(object), "a", None],
        "scales": [scales[:4], scales[:, :3], scales.T, scales.astype(np.float64), scales.view(np.uint16), scales[None],
                   scales.astype(">f2"), with_first(scales, 0), with_first(scales, -1), with_first(scales, np.nan),
                   with_first(scales, np.inf), scales.astype(object), "a", 1.0, None],
        "zero_points": [good["zero_points"].astype(np.int8), with_first(good["zero_points"], 16), np.uint8(3),
                        good["zero_points"][:, :2], good["zero_points"].astype(float), "a"],
    }  # fmt: skip
    for name, values in wrong.items():
        for value in values:
            text = raises(ValueError, "state", QuantizedWeight.from_state, {**good, name: value})
            entries = ("codes", "scales", "shape") if name in ("format", "shape", "group_size") else ()
            assert any(entry in text for entry in (name, *entries)), (name, value, text)
    assert_same(QuantizedWeight.from_state(good).scales, scales)


def test_from_int4_signed(isa):
    q = cases.ints(1, (7, 100), -8, 7, np.int8)
    for dtype in (np.float16, np.float32):
        scales = cases.scales(2, (7, 4)).astype(dtype)
        qw = QuantizedWeight.from_int4(q, scales, group_size=32)
        assert (qw.format, qw.group_size, qw.symmetric, qw.shape) == ("int4", 32, True, (7, 100))
        want = q.astype(np.float32) * np.repeat(scales.astype(np.float32), 32, axis=1)[:, :100]
        assert (qw.dequantize() == want).all()
    for scales in (cases.scales(2, (7,)), cases.scales(2, (7, 1))):
        qw = QuantizedWeight.from_int4(q, scales)
        assert (qw.dequantize() == q.astype(np.float32) * scales.reshape(7, 1)).all() and qw.scales.shape == (7,)


def test_from_int4_unsigned(isa):
    """As checkpoints give them: by columns, zero points of several integer types."""
    q = cases.ints(1, (128, 9), 0, 15, np.uint8)  # [K, N]
    scales, zero_points = cases.scales(2, (4, 9)).astype(np.float16), cases.ints(3, (4, 9), 0, 15)
    steps = (q.astype(int) - np.repeat(zero_points, 32, axis=0)).astype(np.float32)
    want = np.ascontiguousarray((steps * np.repeat(scales.astype(np.float32), 32, axis=0)).T)
    for kind in (np.uint8, np.int8, np.int32, np.int64):
        qw = QuantizedWeight.from_int4(q.T, scales.T, zero_points.T.astype(kind), group_size=32)
        assert not qw.symmetric and qw.zero_points.dtype == np.uint8
        assert (qw.dequantize() == want).all()
    packed_bytes = qkernels.pack(np.ascontiguousarray(q.T), 4)  # nibbles
    again = QuantizedWeight.from_int4(
        qkernels.unpack(packed_bytes, 4, 128, signed=False), scales.T, zero_points.T, group_size=32)  # fmt: skip
    assert_same(again.dequantize(), qw.dequantize())
    for zero in (0, 7, np.uint8(15)):
        qw = QuantizedWeight.from_int4(q.T, scales.T, zero, group_size=32)
        assert (qw.zero_points == zero).all() and qw.zero_points.shape == (9, 4)
    by_row = QuantizedWeight.from_int4(q.T, scales[0], zero_points[0])
    assert by_row.zero_points.tolist() == zero_points[0].tolist()


def test_zero_points_in_the_middle_are_not_stored(isa):
    q, scales = cases.ints(1, (9, 64), 0, 15, np.uint8), cases.scales(2, (9, 2))
    want = QuantizedWeight.from_int4((q - 8).view(np.int8), scales, group_size=32)
    for zero_points in (8, np.full((9, 2), 8, np.uint8)):
        qw = QuantizedWeight.from_int4(q, scales, zero_points, group_size=32)
        assert qw.symmetric and qw.zero_points is None and qw.nbytes == want.nbytes
        assert_same(qw.dequantize(), want.dequantize())


@pytest.mark.filterwarnings("error")
def test_bad_ready_made_weights(isa):
    make = QuantizedWeight.from_int4
    q, u = cases.ints(1, (5, 64), -8, 7, np.int8), cases.ints(1, (5, 64), 0, 15, np.uint8)
    scales, zeros = cases.scales(2, (5, 2)), np.full((5, 2), 3, np.uint8)
    for bad in (q.astype(np.int32), q.astype(float), None, "q", [[1, 2]], q > 0):
        raises(TypeError, "q", make, bad, scales, group_size=32)
    for bad in (q[0], q[None], np.full((5, 64), 8, np.int8), np.full((5, 64), -9, np.int8)):
        raises(ValueError, "q", make, bad, scales, group_size=32)
    raises(ValueError, "q", make, np.full((5, 64), 16, np.uint8), scales, zeros, group_size=32)
    for bad in (scales.astype(np.float64), scales.astype(int), scales.tolist(), "s", None, 1.0):
        raises(TypeError, "scales", make, q, bad, group_size=32)
    for bad in (scales.T, scales[:4], scales[:, 0], scales[None], np.float32(1), scales * 0, -scales, scales * np.inf):
        with np.errstate(invalid="ignore"):
            raises(ValueError, "scales", make, q, bad, group_size=32)
    raises(ValueError, "scales", make, q, scales)
    raises(ValueError, "zero_points", make, u, scales, group_size=32)  # unsigned needs them
    raises(ValueError, "zero_points", make, q, scales, zeros, group_size=32)  # signed has none
    for bad in (zeros.astype(float), "z", True, 1.0, zeros > 0):
        raises(TypeError, "zero_points", make, u, scales, bad, group_size=32)
    for bad in (zeros.T, zeros[:, 0], zeros + np.uint8(13), -1, -253, 16, 2**40):
        raises(ValueError, "zero_points", make, u, scales, bad, group_size=32)
    for bad in (0, -32, 1, 31, 33):
        raises(ValueError, "group_size", make, q, scales, group_size=bad)
