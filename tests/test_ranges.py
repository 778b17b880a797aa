"""Ranges by percentile, squared error and entropy, of values and of histograms, against the oracle."""

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from test_affine import DTYPES

import qkernels
from qkernels import ranges, ref
from qkernels.qparams import Scheme

LAYOUTS = [
    ((5, 37), None, None), ((), None, None), ((3, 4, 33), -2, None), ((2, 2, 45), None, 32), ((2, 9), None, 100),
    ((0,), None, None), ((0, 5), 1, None), ((4, 0), 0, None), ((4, 0), None, 8),
]  # fmt: skip
NORMAL = np.random.default_rng(7).standard_normal(2**18).astype(np.float32)


def sample(seed, shape):
    """Values of which a few are much larger than the others, and a row of zeros."""
    x = np.asarray(cases.floats(seed, shape, 2.0) ** 5, np.float32)  # NumPy 1 makes float64 of the power of one number
    if shape and shape[0] > 3:
        x[2] = 0
    return x


def assert_same_choice(x, *args, **options):
    got = qkernels.choose_qparams(x, *args, **options)
    want = cases.oracle(ref.choose_qparams, x, *args, **options)
    for g, w in zip(got[:2], want[:2]):
        assert_same(g, w, (np.shape(x), args, options))
    assert got[2:] == want[2:]
    return got


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_choose_qparams(isa, dtype, method):
    for shape, axis, group_size in LAYOUTS:
        for symmetric in (True, False):
            where = {"axis": axis, "group_size": group_size, "symmetric": symmetric, "method": method}
            x = sample(1, shape)
            assert_same_choice(x, dtype, **where)
            if axis is not None:
                assert_same_choice(np.abs(x), dtype, **where)
            if method == "percentile":
                assert_same_choice(x, dtype, percentile=70, **where)
        assert_same_choice(x, dtype, axis=axis, group_size=group_size, method=method, full_range=True)


@pytest.mark.parametrize("dtype, where", [
    ("int8", {"axis": 0}), ("uint8", {"symmetric": False}), ("int4", {"full_range": True}), ("uint4", {}),
    ("int2", {"symmetric": False}), ("uint2", {"group_size": 2100}),
])  # fmt: skip
def test_choose_qparams_by_entropy(isa, dtype, where):
    x = cases.floats(3, (2, 2000)) ** 5 * np.float32([[1], [20]])
    assert_same_choice(x, dtype, method="entropy", **where)
    for shape in [(), (0,), (3, 0)]:
        assert_same_choice(np.zeros(shape, np.float32), dtype, method="entropy")


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_extremes_and_strides(isa, method):
    for values in ([3e38, -3e38], [1e-45, -1e-40], [-0.0], [2.0**-126, 1], [5]):
        for symmetric in (True, False) if method != "entropy" else (False,):
            assert_same_choice(np.float32(values * 20), method=method, symmetric=symmetric)
    x = sample(5, (6, 40))
    want = qkernels.choose_qparams(x, axis=0, method=method).scale
    for view in cases.strided(x).values():
        assert_same(qkernels.choose_qparams(view, axis=0, method=method).scale, want)


@pytest.mark.any_isa
def test_bad_input():
    x = cases.floats(1, (3, 40))
    for method in ("mse", "entropy"):
        raises(ValueError, "percentile", qkernels.choose_qparams, x, method=method, percentile=99.0)
    for bad in (0, -1, 100.1, np.nan, np.inf):
        raises(ValueError, "percentile", qkernels.choose_qparams, x, method="percentile", percentile=bad)
    for bad in ("99", [99.0], True):
        raises(TypeError, "percentile", qkernels.choose_qparams, x, method="percentile", percentile=bad)
    for method in ("percentile", "mse", "entropy"):
        for bad in (np.nan, np.inf, -np.inf):
            raises(ValueError, "x", qkernels.choose_qparams, np.append(x, np.float32(bad)), method=method)
        raises(ValueError, "full_range", qkernels.choose_qparams, x, method=method, symmetric=False, full_range=True)
        raises(TypeError, "x", qkernels.choose_qparams, x.astype(float), method=method)


@pytest.mark.any_isa
@pytest.mark.parametrize("percentile", [10, 50, 90, 99.9, 100])
def test_percentiles_are_those_of_numpy(percentile):
    x = cases.floats(6, (4, 999), 3.0).astype(np.float64).astype(np.float32)
    got = qkernels.choose_qparams(x, axis=0, method="percentile", percentile=percentile).scale
    assert_same(got, (np.percentile(np.abs(x).astype(float), percentile, axis=1)).astype(np.float32) / np.float32(127))
    got = qkernels.choose_qparams(x, "uint8", axis=0, method="percentile", percentile=percentile, symmetric=False)
    low, high = np.percentile(x.astype(float), [50 - percentile / 2, 50 + percentile / 2], axis=1).astype(np.float32)
    np.testing.assert_allclose(got.scale, (np.maximum(high, 0) - np.minimum(low, 0)) / 255, rtol=1e-6)


@pytest.mark.any_isa
@pytest.mark.parametrize("options, decibels", [
    ({"dtype": "int2"}, 8.26), ({"dtype": "int2", "full_range": True}, 8.26), ({"dtype": "int4"}, 19.26),
    ({"dtype": "int4", "full_range": True}, 19.26), ({"dtype": "uint4", "symmetric": False}, 19.26),
])  # fmt: skip
def test_least_error_of_the_normal_distribution(options, decibels):
    """What the best step gives in theory, with 2**bits levels and one of them at 0."""
    chosen = qkernels.choose_qparams(NORMAL, method="mse", **options)
    left = qkernels.fake_quantize(NORMAL, chosen.scale, chosen.zero_point, dtype=options["dtype"]) - NORMAL
    found = -10 * np.log10(np.square(left, dtype=float).mean() / np.square(NORMAL, dtype=float).mean())
    assert abs(found - decibels) < 0.05


def histograms_of_counts():
    """Shapes that the search meets: smooth, with gaps, few values, all values in one bin, ends that are empty."""
    normal = np.bincount((np.abs(NORMAL) / np.abs(NORMAL).max() * 2047.99).astype(int), minlength=2048)
    gaps = np.where(np.arange(2048) % 7 == 0, 50, 0)
    gaps[-1] = 3
    few = np.bincount(cases.ints(8, (90,), 0, 2047), minlength=2048)
    one, cut = np.zeros((2, 2048), int)
    one[1500], cut[:700] = 10**6, normal[:700]
    return {"normal": normal, "gaps": gaps, "few": few, "one": one, "cut": cut, "even": np.full(2048, 9)}


@pytest.mark.any_isa
@pytest.mark.parametrize("name", histograms_of_counts())
def test_entropy_is_that_of_the_direct_computation(name):
    counts = histograms_of_counts()[name]
    assert ranges.entropy_bins(counts, 128) == ref.ranges.entropy_bins(counts, 128)
    for bins, levels in [(300, 128), (513, 8), (100, 2), (128, 128), (60, 128)]:
        assert ranges.entropy_bins(counts[:bins], levels) == ref.ranges.entropy_bins(counts[:bins], levels)


@pytest.mark.any_isa
def test_entropy_by_hand():
    """Two levels. All 4 bins: Q has the first two of P alike; the first 2 bins: Q lacks what lies beyond."""
    counts = np.array([5, 1, 1, 1])
    p, q = np.array([5, 1, 1, 1]) / 8, np.array([3, 3, 1, 1]) / 8
    assert np.isclose(ref.ranges.divergence(counts, 4, 2), (p * np.log2(p / q)).sum())
    p, q = np.array([5, 3]) / 8, np.array([5, 1]) / 6
    assert np.isclose(ref.ranges.divergence(counts, 2, 2), (p * np.log2(p / q)).sum())
    assert ranges.entropy_bins(np.array([99, 5, 1, 1, 1]), 2) == ranges.entropy_bins(np.array([0, 5, 1, 1, 1]), 2) == 4
    assert ranges.entropy_bins(np.array([0, 8, 8, 1, 1]), 2) == 5
    p, q = np.array([4, 4]) / 8, np.array([4, 1e-4]) / 4  # Q has nothing where P has what lies beyond
    assert np.isclose(ref.ranges.divergence(np.array([4, 0, 4, 0]), 2, 2), (p * np.log2(p / q)).sum())


@pytest.mark.any_isa
def test_entropy_cuts_outliers_off():
    x = np.append(NORMAL[:100_000], np.float32(100))
    cut = qkernels.choose_qparams(x, method="entropy").scale * 127
    assert np.abs(NORMAL[:100_000]).max() < cut < 7


@pytest.mark.any_isa
def test_logarithms():
    x = np.concatenate([np.arange(1, 5000), 2.0 ** np.arange(53), 2.0 ** np.arange(1, 53) - 1, np.linspace(1, 2, 999)])
    np.testing.assert_allclose(ranges._log2(x), np.log2(x), rtol=4e-16, atol=4e-16)
    assert (ranges._log2(2.0 ** np.arange(53)) == np.arange(53)).all()


def histograms(x, bins=64):
    """Of rows, by loops."""
    widths = np.array([2.0 ** np.ceil(np.log2(np.abs(row).max() * 1.0001 / bins)) for row in x])
    counts = np.zeros((len(x), 2, bins), np.int64)
    for row, count, width in zip(x, counts, widths):
        for value in row:
            count[int(value >= 0), int(abs(float(value)) / width)] += 1
    return ranges.Histograms(counts, widths, x.min(axis=1), x.max(axis=1))


@pytest.mark.any_isa
@pytest.mark.parametrize("symmetric", [True, False])
def test_histograms(symmetric):
    x = cases.floats(9, (3, 500), 3.0) ** 3
    x[1], x[2] = np.abs(x[1]), -np.abs(x[2]) - np.float32(0.01)
    seen, scheme = histograms(x), Scheme("int4", symmetric, False)
    assert_same(np.array(ranges.of_histograms(seen, scheme, "minmax", None)), np.array(ranges.limits(x)))
    for percentile in (1, 50, 95, 99.9, 100):
        got = ranges.of_histograms(seen, scheme, "percentile", percentile)
        want = ranges.of_rows(x, scheme, "percentile", percentile)
        assert (np.abs(np.array(got) - want) < seen.widths).all()
    assert_same(np.array(got), np.array(want))  # 100

    low, high = ranges.of_histograms(seen, scheme, "mse", None)
    for i, (centres, counts) in enumerate(zip(seen.centres(), seen.counts)):
        values, ends = np.repeat(centres, counts.ravel()), ref.ranges.ends_of(x[i])
        want = ref.ranges.by_squared_error(values, ends, "int4", {"symmetric": symmetric, "full_range": False})
        assert_same(np.array([low[i], high[i]]), want)

    low, high = ranges.of_histograms(seen, scheme, "entropy", None)
    for i, counts in enumerate(seen.counts):
        cut = (ref.ranges.entropy_bins(counts.sum(axis=0), 8) + 0.5) * seen.widths[i]
        assert np.isclose(max(-low[i], high[i]), min(cut, np.abs(x[i]).max()))
