"""InputStatistics: sums that parts share, states, bad input."""

import copy
import io
import pickle

import cases
import numpy as np
import pytest
from cases import assert_same, raises

from qkernels import statistics
from qkernels.calibration import InputStatistics

pytestmark = pytest.mark.any_isa


def assert_same_statistics(got, want):
    got, want = got.to_state(), want.to_state()
    assert list(got) == list(want)
    for name, entry in want.items():
        assert_same(got[name], entry, name)


@pytest.mark.parametrize("rows_at_a_time", [1, 40, 50, 1024])
def test_against_products_in_float64(rows_at_a_time, monkeypatch):
    monkeypatch.setattr(statistics, "ROWS", rows_at_a_time)
    x = cases.floats(1, (3, 50, 17), 4.0)
    seen = InputStatistics(17).observe(x[0]).observe(x[1:])
    rows = x.reshape(-1, 17).astype(float)
    assert (seen.k, seen.count) == (17, 150)
    np.testing.assert_allclose(seen.hessian, rows.T @ rows / 150, rtol=0, atol=150 * 16 * 2.0**-24)
    np.testing.assert_allclose(seen.mean, rows.mean(axis=0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(seen.mean_abs, np.abs(rows).mean(axis=0), rtol=1e-12)
    assert_same(seen.max_abs, np.abs(x).max(axis=(0, 1)))
    assert repr(seen) == "<InputStatistics of 150 rows of 17 values>"


def test_parts_make_the_whole():
    """Integers, whose sums are exact, so that nothing but a mistake can tell parts from the whole."""
    x = cases.ints(2, (200, 9), -50, 50, np.float32)
    whole = InputStatistics(9).observe(x)
    for cut in (0, 1, 77, 200):
        first, second = InputStatistics(9).observe(x[:cut]), InputStatistics(9).observe(x[cut:])
        assert_same_statistics(copy.deepcopy(second).merge(first), whole)
        assert first.merge(second) is first
        assert_same_statistics(first, whole)
    assert_same(whole.hessian, x.astype(float).T @ x.astype(float) / 200)


def test_reading_changes_nothing():
    """To the last bit, so that threads may share statistics: rows wait for others whether or not they are read."""
    x = cases.floats(5, (300, 9))
    whole, seen = InputStatistics(9).observe(x), InputStatistics(9)
    for rows in np.array_split(x, 7):
        seen.observe(rows)
        assert_same(seen.hessian, seen.hessian)
        pickle.dumps(seen)
        InputStatistics(9).merge(seen)
    assert_same(seen.hessian, whole.hessian)
    assert_same(InputStatistics(9).merge(seen).hessian, whole.hessian)


def test_an_interrupted_batch_is_not_added(monkeypatch):
    """So that it can be observed again, whenever it was interrupted."""
    monkeypatch.setattr(statistics, "ROWS", 10)
    x, real, left = cases.floats(6, (95, 9)), statistics._with_products, []

    def interrupted(*args):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return real(*args)

    for calls in range(9):
        seen, twin = (InputStatistics(9).observe(x[:5]) for _ in range(2))
        left[:] = [None] * calls
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(statistics, "_with_products", interrupted)
            seen.observe(x[5:])
        assert_same_statistics(seen, twin)
        assert_same_statistics(seen.observe(x[5:]), twin.observe(x[5:]))


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0), (5,), (2, 0, 5)])
def test_small(shape):
    seen = InputStatistics(shape[-1]).observe(np.ones(shape, np.float32))
    rows = int(np.prod(shape[:-1]))
    assert seen.count == rows
    assert_same(seen.hessian, np.full((shape[-1], shape[-1]), float(rows > 0)))
    assert_same(seen.max_abs, np.full(shape[-1], np.float32(rows > 0)))


def test_strides():
    x = cases.floats(3, (10, 6))
    for view in cases.strided(x).values():
        seen = InputStatistics(6).observe(view)
        np.testing.assert_allclose(seen.hessian, InputStatistics(6).observe(x).hessian, rtol=1e-5, atol=1e-6)
        assert_same(seen.mean, InputStatistics(6).observe(x).mean)


def test_state_and_pickle():
    for seen in (InputStatistics(5), InputStatistics(5).observe(cases.floats(4, (7, 5)))):
        file = io.BytesIO()
        np.savez(file, **seen.to_state())
        file.seek(0)
        for again in (InputStatistics.from_state(seen.to_state()), pickle.loads(pickle.dumps(seen)),
                      InputStatistics.from_state(np.load(file, allow_pickle=False)), copy.deepcopy(seen)):  # fmt: skip
            assert_same_statistics(again, seen)
            again.observe(np.ones((1, 5), np.float32))
            assert again.count == seen.count + 1 and again.hessian[0, 0] != seen.hessian[0, 0]


def test_bad_states():
    good = InputStatistics(5).observe(cases.floats(4, (7, 5))).to_state()
    raises(TypeError, "state", InputStatistics.from_state, None)
    for name in good:
        raises(ValueError, "state", InputStatistics.from_state, {k: v for k, v in good.items() if k != name})
        for bad in (np.array("x"), np.zeros((5, 5, 5)), np.array(-1), good[name] * np.nan):
            raises(ValueError, "state", InputStatistics.from_state, good | {name: bad})
    raises(ValueError, "state", InputStatistics.from_state, good | {"version": np.array(2)})
    for name in ("products", "sum_abs", "max_abs"):
        assert name in raises(ValueError, "state", InputStatistics.from_state, good | {name: -good[name]})
    assert "count" in raises(ValueError, "state", InputStatistics.from_state, good | {"count": np.array(0)})
    assert "other" in raises(ValueError, "state", InputStatistics.from_state, good | {"other": np.array(1)})


def test_bad_input_changes_nothing():
    seen, twin = (InputStatistics(5).observe(cases.floats(4, (7, 5))) for _ in range(2))
    for bad in (np.nan, np.inf, -np.inf, 2e15, -3e38):
        raises(ValueError, "x", seen.observe, np.float32([[1, 2, 3, 4, 5], [1, 2, bad, 4, 5]]))
    for shape in [(5, 7), (), (4, 6), (0,)]:
        raises(ValueError, "x", seen.observe, np.ones(shape, np.float32))
    for bad in (np.ones((2, 5)), np.ones((2, 5), int), None):
        raises(TypeError, "x", seen.observe, bad)
    raises(TypeError, "other", seen.merge, seen.hessian)
    raises(ValueError, "other", seen.merge, InputStatistics(6))
    raises(TypeError, "k", InputStatistics, 5.0)
    raises(ValueError, "k", InputStatistics, -1)
    assert_same_statistics(seen, twin)


def test_the_largest_values_do_not_overflow():
    seen = InputStatistics(3).observe(np.full((1000, 3), 2.0**50, np.float32))
    assert_same(seen.hessian, np.full((3, 3), 2.0**100))
