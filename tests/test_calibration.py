"""Observers: what they see is what is there, in any order and in any parts."""

import copy
import io
import itertools
import pickle
import tracemalloc

import cases
import numpy as np
import pytest
from cases import assert_same, raises

import qkernels
from qkernels import histogram_observer
from qkernels.calibration import HistogramObserver, MinMaxObserver, MovingAverageObserver

pytestmark = pytest.mark.any_isa

KINDS = [MinMaxObserver, MovingAverageObserver, HistogramObserver]
EXACT = [MinMaxObserver, HistogramObserver]
kinds, exact = pytest.mark.parametrize("kind", KINDS), pytest.mark.parametrize("kind", EXACT)
axes = pytest.mark.parametrize("axis", [None, 0, 1, -1])


def batches(seed=1):
    """[2, 3, 5] each, larger and smaller ones, zeros and the ends of float32."""
    sizes = [1e-3, 0, 1e-45, 4.0, 0.3, 1e-38, 3e38, 2.0]
    made = [cases.floats(seed + i, (2, 3, 5), 1.0) * np.float32(size) for i, size in enumerate(sizes)]
    made[3] = np.abs(made[3])
    return made


def assert_same_state(got, want):
    got, want = got.to_state(), want.to_state()
    assert list(got) == list(want)
    for name, entry in want.items():
        assert got[name].dtype == entry.dtype and got[name].tobytes() == entry.tobytes(), name


@exact
@axes
def test_parts_make_the_whole_in_any_order(kind, axis):
    parts = batches()
    whole = kind(axis=axis).observe(np.concatenate(parts, axis=2 if axis == 0 or axis is None else 0))
    for order in itertools.islice(itertools.permutations(parts), 0, None, 1999):
        got = kind(axis=axis)
        for part in order:
            assert got.observe(part) is got
        assert_same_state(got, whole)
        for cut in (0, 1, 4, 8):
            halves = [kind(axis=axis), kind(axis=axis)]
            for i, part in enumerate(order):
                halves[i >= cut].observe(part)
            assert halves[0].merge(halves[1]) is halves[0]
            assert_same_state(halves[0], whole)


@exact
@axes
def test_minmax_is_that_of_choose_qparams(kind, axis):
    for x in batches():
        seen = kind(axis=axis).observe(x)
        for dtype, options in [("uint8", {"symmetric": False}), ("int4", {"symmetric": True, "full_range": True})]:
            got, want = seen.qparams(dtype, **options), qkernels.choose_qparams(x, dtype, axis=axis, **options)
            assert_same(got.scale, want.scale)
            assert_same(got.zero_point, want.zero_point)
            assert got[2:] == want[2:]


@kinds
def test_ranges_and_count(kind):
    x = batches()[3]
    seen = kind().observe(x)
    assert_same(seen.low, np.float32(x.min() + 0))
    assert_same(seen.high, x.max())
    assert seen.count == x.size and f"{kind.__name__} of {x.size} values" in repr(seen)
    positions = kind(axis=-2).observe(x)  # per token
    assert_same(positions.high, x.max(axis=(0, 2)))
    assert positions.qparams().scale.shape == (3,)


def test_moving_average_is_the_recursion():
    seen, ends = MovingAverageObserver(0.1, axis=-1), None
    for x in batches(50):
        new = np.array([x.min(axis=(0, 1)), x.max(axis=(0, 1))], float)
        ends = new if ends is None else ends + 0.1 * (new - ends)
        seen.observe(x)
        np.testing.assert_allclose([seen.low, seen.high], ends, rtol=1e-6)
    want = qkernels.choose_qparams(np.stack([seen.low, seen.high]), "uint8", axis=1, symmetric=False)
    assert_same(seen.qparams().scale, want.scale)
    assert_same(seen.qparams().zero_point, want.zero_point)


@pytest.mark.parametrize("momentum", [0.01, 0.3, 1.0])
def test_moving_average_goes_on_with_what_it_is_merged_with(momentum):
    parts = [x for x in batches(60) if np.abs(x).max() < 1e38]
    whole = MovingAverageObserver(momentum)
    for x in parts:
        whole.observe(x)
    for first, second in itertools.combinations_with_replacement(range(len(parts) + 1), 2):
        pieces = [MovingAverageObserver(momentum) for _ in range(3)]
        for i, x in enumerate(parts):
            pieces[(i >= first) + (i >= second)].observe(x)
        left = copy.deepcopy(pieces[0]).merge(pieces[1]).merge(pieces[2])
        right = pieces[0].merge(pieces[1].merge(pieces[2]))
        for got in (left, right):
            np.testing.assert_allclose([got._low, got._high], [whole._low, whole._high], rtol=1e-13)
            np.testing.assert_allclose(got._decay, whole._decay, rtol=1e-13)
            assert got.count == whole.count


@pytest.mark.parametrize("bins", [2, 7, 64, 2048])
@pytest.mark.parametrize("piece", [8, 100, 2**20])
def test_histogram_counts_every_value(bins, piece, monkeypatch):
    monkeypatch.setattr(histogram_observer, "PIECE", piece)
    rows = np.concatenate([cases.floats(9, (4, 50), 3.0), np.float32([[2.0**-8], [1.5], [-0.0], [-4]])], axis=1)
    rows[3] *= np.float32(1e-40)
    rows[2, :-1] = 0
    x = rows.reshape(4, 17, 3).swapaxes(0, 1)
    state = HistogramObserver(bins, axis=1).observe(x[:5]).observe(x[5:]).to_state()
    for row, counts in zip(rows, state["counts"]):
        largest, width = max(float(np.abs(row).max()), 2.0**-149), 2.0**-200
        while largest >= width * bins:
            width *= 2
        want = np.zeros((2, bins), int)
        for value in row.tolist():
            want[int(value >= 0), int(abs(value) / width)] += 1
        assert_same(counts, want)
        assert counts[:, -(-bins // 2) :].sum() or bins % 2 or largest == 2.0**-149  # half of them at least are used


def test_histogram_ranges_are_near_those_of_the_values():
    x = cases.floats(11, (3, 4000), 2.0) ** 3
    seen = HistogramObserver(axis=0).observe(x)
    for symmetric, dtype in itertools.product((True, False), ("int8", "uint4")):
        options = {"symmetric": symmetric}
        for method in ("percentile", "mse", "entropy"):
            got, want = (f(dtype, method=method, **options) for f in (
                seen.qparams, lambda *a, **o: qkernels.choose_qparams(x, *a, axis=0, **o)))  # fmt: skip
            np.testing.assert_allclose(got.scale, want.scale, rtol={"percentile": 2e-3, "mse": 0.05}.get(method, 0.1))
    low, high = (seen.qparams(method="percentile", percentile=p).scale for p in (60, 100))
    assert (low < high).all()
    assert_same(high, seen.qparams().scale)


@kinds
@axes
def test_state_and_pickle(kind, axis):
    parts = batches(70)
    for seen in (kind(axis=axis), kind(axis=axis).observe(parts[0]).observe(parts[3])):
        file = io.BytesIO()
        np.savez(file, **seen.to_state())
        file.seek(0)
        for again in (kind.from_state(seen.to_state()), kind.from_state(np.load(file, allow_pickle=False)),
                      pickle.loads(pickle.dumps(seen)), copy.deepcopy(seen)):  # fmt: skip
            assert_same_state(again, seen)
            assert repr(again) == repr(seen)
            assert_same_state(again.observe(parts[4]), copy.copy(seen).observe(parts[4]))
            assert not seen.count or again.count > seen.count  # nothing is shared


@kinds
def test_bad_states(kind):
    good = kind(axis=0).observe(batches()[0]).to_state()
    raises(TypeError, "state", kind.from_state, [])
    for name in good:
        raises(ValueError, "state", kind.from_state, {key: value for key, value in good.items() if key != name})
        for bad in (np.array("x"), np.zeros((3, 2, 1, 1)), np.array(2**40 + 1)):
            raises(ValueError, "state", kind.from_state, good | {name: bad})
    for name in ("low", "high"):
        raises(ValueError, "state", kind.from_state, good | {name: np.full_like(good[name], np.nan)})
    raises(ValueError, "state", kind.from_state, good | {"low": good["high"], "high": good["low"]})
    raises(ValueError, "state", kind.from_state, good | {"other": np.array(1)})
    for other in set(KINDS) - {kind}:
        raises(ValueError, "state", other.from_state, good)


@kinds
def test_bad_batches_change_nothing(kind):
    seen, twin = (kind(axis=1).observe(batches()[0]) for _ in range(2))
    for bad in (np.nan, np.inf, -np.inf):
        x = batches()[6].copy()
        x[1, 2, 3] = bad
        raises(ValueError, "x", seen.observe, x)
    raises(ValueError, "x", seen.observe, np.ones((2, 4, 5), np.float32))
    raises(ValueError, "x", seen.observe, np.ones(3, np.float32))
    for bad in (np.ones((2, 3, 5)), np.ones((2, 3, 5), int), None):
        raises(TypeError, "x", seen.observe, bad)
    raises(ValueError, "other", seen.merge, kind(axis=0).observe(batches()[0]))
    raises(ValueError, "other", seen.merge, kind(axis=1).observe(np.ones((2, 4), np.float32)))
    raises(TypeError, "other", seen.merge, seen.to_state())
    raises(TypeError, "other", seen.merge, next(k for k in KINDS if k is not kind)())
    assert_same_state(seen.observe(np.zeros((0, 3), np.float32)).merge(kind(axis=1)), twin)


@kinds
def test_bad_parameters(kind):
    seen = kind()
    raises(ValueError, "observer", seen.qparams)
    seen.observe([1.0, 2.0])
    raises(TypeError, "dtype", seen.qparams, "int16")
    for bad in ("max", None, *(() if kind is HistogramObserver else ("mse", "percentile", "entropy"))):
        raises(ValueError, "method", seen.qparams, method=bad)
    raises(ValueError, "percentile", seen.qparams, percentile=99)
    raises(ValueError, "full_range", seen.qparams, full_range=True)
    raises(TypeError, "axis", kind, axis=0.5)
    for bad in (1, 0, 2**21):
        raises(ValueError, "bins", HistogramObserver, bad)
        raises(ValueError, "momentum", MovingAverageObserver, bad - 2 if bad < 2 else bad)
    raises(TypeError, "momentum", MovingAverageObserver, "0.1")


@kinds
def test_strides(kind):
    x = cases.floats(13, (4, 6, 5), 2.0)
    for view in cases.strided(x).values():
        for axis in (None, 0, 1, 2):
            assert_same_state(kind(axis=axis).observe(view), kind(axis=axis).observe(x))


def test_memory_does_not_grow_with_the_batch(monkeypatch):
    monkeypatch.setattr(histogram_observer, "PIECE", 2**14)
    x, peaks = cases.floats(14, (2**19, 4)), []
    for rows in (2**15, 2**19):
        tracemalloc.start()
        HistogramObserver(axis=-1).observe(x[:rows])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**16 < x.nbytes / 4
