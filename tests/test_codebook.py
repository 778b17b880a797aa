"""Codebook: the nearest level exactly, levels that are optimal, and the distortions that the literature has."""

import itertools
import math
import pickle
from fractions import Fraction

import cases
import numpy as np
import pytest
from cases import assert_same, raises

from qkernels import Codebook, kmeans

pytestmark = [pytest.mark.any_isa, pytest.mark.filterwarnings("error")]

NORMAL = np.random.default_rng(20).standard_normal(1_200_000).astype(np.float32)
LEAST, MOST = np.float32(2.0**-149), np.finfo(np.float32).max


def decibels(x, y):
    x = x.astype(np.float64)
    return 10 * math.log10(np.square(x).sum() / np.square(x - y).sum())


def distortion(book, x=NORMAL):
    return decibels(x, book.decode(book.encode(x)))


def nearest(x, levels):
    """By comparing the distances as fractions; the first of equal ones."""
    levels = [Fraction(float(level)) for level in levels]
    distances = [[abs(Fraction(float(value)) - level) for level in levels] for value in x]
    return [row.index(min(row)) for row in distances]


@pytest.mark.parametrize("levels", [
    [0], [-1, 1], [LEAST, 2], [-LEAST, 2], [-LEAST, LEAST], [0, LEAST, 2 * LEAST], [1, 3], [-MOST, MOST], [1, MOST],
    [2.0**-100, 1, 1 + 2.0**-23, 2.0**100], np.float32([-3, 1e-30, 0.1, 0.2, 0.30000001, 7]), cases.floats(1, (37,)),
], ids=str)  # fmt: skip
def test_encode_is_the_nearest(levels):
    """At the middles, where they are numbers and where not, and next to them."""
    book = Codebook(levels)
    assert (book.levels[1:] > book.levels[:-1]).all() and set(book.levels) == set(np.float32(levels))
    middles = (book.levels[:-1].astype(float) + book.levels[1:]) / 2
    x = np.concatenate([book.levels, middles.astype(np.float32), cases.floats(2, (200,), 4.0)]).astype(np.float32)
    x = np.concatenate([x, np.nextafter(x, -MOST), np.nextafter(x, MOST)])
    assert book.encode(x).tolist() == nearest(x, book.levels)


def test_ties_infinities_and_types():
    book = Codebook(np.float64([4, 0, 1, 4]))
    assert_same(book.levels, np.float32([0, 1, 4]))
    assert book.encode(np.float32([0.5, 2.5, -np.inf, np.inf, -0.0])).tolist() == [0, 1, 0, 2, 0]
    assert book.encode([2.6]).dtype == np.uint8 and Codebook(range(256)).encode(np.float32(255)) == 255
    wide = Codebook(range(257))
    assert_same(wide.encode(np.float32([[256, 300]])), np.uint16([[256, 256]]))
    assert len(wide) == 257 and wide.dtype == np.uint16 and "257" in repr(wide) and book.step is None
    for code in (np.uint8([[2, 0]]), np.int64([[2, 0]])):
        assert_same(book.decode(code), np.float32([[4, 0]]))
    with pytest.raises(ValueError, match="read-only"):
        book.levels[0] = 3


def test_layouts_and_out():
    book, x = Codebook.nf4(), cases.floats(1, (18, 33))
    want = book.encode(x)
    for view in cases.strided(x).values():
        assert_same(book.encode(view), want)
    out = np.zeros((18, 66), np.uint8)[:, ::2]
    assert book.encode(x, out) is out and (out == want).all()
    for shape in [(0,), (3, 0), ()]:
        empty = np.zeros(shape, np.float32)
        assert book.decode(book.encode(empty)).shape == shape
    again = pickle.loads(pickle.dumps(Codebook.uniform(0, 1, 5)))
    assert_same(again.levels, np.float32([0, 0.25, 0.5, 0.75, 1]))
    assert again.step == 0.25


def test_uniform():
    book = Codebook.uniform(-10, 10, 256)
    assert book.step == 20 / 255 and (book.levels[0], book.levels[-1], len(book)) == (-10, 10, 256)
    x = cases.floats(1, (5000,), 10.0)
    assert np.abs(book.decode(book.encode(x)).astype(float) - x).max() <= book.step / 2 + 1e-6
    for count in (2, 3, 100, 1000, 65536):
        book = Codebook.uniform(-1, 3, count)
        np.testing.assert_allclose(book.levels, -1 + 4 * np.arange(count) / (count - 1), atol=3e-7)


@pytest.mark.parametrize("bits, bar", [(1, 4.40), (2, 9.30), (3, 14.62), (4, 20.22), (5, 26.01), (6, 31.91)])
def test_lloyd_max_of_the_normal_distribution(bits, bar):
    """Max 1960, and for 5 and 6 bits the same computed."""
    book = Codebook.lloyd_max("normal", 2**bits)
    assert len(book) == 2**bits and abs(distortion(book) - bar) <= 0.02
    assert_same(book.levels, -book.levels[::-1])


def test_lloyd_max_is_the_fixed_point():
    """Levels are the centroids of their buckets, by the closed forms."""
    for count in (1, 2, 3, 8, 16):
        levels = Codebook.lloyd_max("normal", count).levels.astype(float)
        ends = [-math.inf, *(levels[:-1] + levels[1:]) / 2, math.inf]
        for level, low, high in zip(levels, ends, ends[1:]):
            mass = (math.erf(high / 2**0.5) - math.erf(low / 2**0.5)) / 2
            moment = (math.exp(-low * low / 2) - math.exp(-high * high / 2)) / math.sqrt(2 * math.pi)
            assert abs(level - moment / mass) < 1e-6
        levels = Codebook.lloyd_max("laplace", count).levels.astype(float)
        if count > 1:  # the density is exp(-sqrt(2) x), without a memory: the last bucket's mean lies 1 / sqrt(2) ahead
            assert abs(levels[-1] - (levels[-2] + levels[-1]) / 2 - 0.5**0.5) < 1e-6
        want = Codebook.uniform(-(3**0.5), 3**0.5, 2 * count + 1).levels[1::2]
        np.testing.assert_allclose(Codebook.lloyd_max("uniform", count).levels, want, atol=1e-6)


def test_lloyd_max_of_a_function():
    named = Codebook.lloyd_max("normal", 8).levels
    given = Codebook.lloyd_max(lambda x: 7 * np.exp(-x * x / 2), 8, (-11, 11.5)).levels
    np.testing.assert_allclose(given, named, atol=1e-6)
    shifted = Codebook.lloyd_max(lambda x: np.exp(-((x - 5) ** 2) / 8), 8, (-19, 29)).levels
    np.testing.assert_allclose(shifted, 5 + 2 * named, atol=1e-5)
    for size in (1.7e308, 1e-310):
        given = Codebook.lloyd_max(lambda x, size=size: size * np.exp(-x * x / 2), 8, (-11, 11.5)).levels
        np.testing.assert_allclose(given, named, atol=1e-6)
    rising = Codebook.lloyd_max(lambda x: x, 1, (0, 3)).levels
    np.testing.assert_allclose(rising, [2], atol=1e-6)  # the centroid of a triangle


def least_error(values, weights, count):
    """Of every way to cut sorted values into clusters."""
    best = math.inf
    for cuts in itertools.combinations(range(1, len(values)), count - 1):
        error = 0
        for part in map(slice, (0, *cuts), (*cuts, len(values))):
            centre = (weights[part] * values[part]).sum() / weights[part].sum()
            error += (weights[part] * (values[part] - centre) ** 2).sum()
        best = min(best, error)
    return best


def test_kmeans_is_optimal():
    for seed in range(40):
        x = np.sort(cases.floats(seed, (11,), 3.0) ** 3)
        count, weights = 1 + seed % 5, cases.scales(seed, (11,), 1.0).astype(np.float64)
        x = np.unique(x)
        for given, weighed in [(None, np.ones(len(x))), (weights[: len(x)], weights[: len(x)])]:
            book = Codebook.kmeans(x, count, given)
            error = (weighed * (book.decode(book.encode(x)).astype(float) - x) ** 2).sum()
            assert len(book) == count
            assert error <= least_error(x.astype(float), weighed, count) * (1 + 1e-5) + 1e-12


@pytest.mark.parametrize("spread", [1, 10, 30, 200])
def test_kmeans_is_optimal_for_weights_of_any_range(spread):
    """Log-normal ones, and a heavy value among light ones: errors are compared exactly."""
    for seed in range(8):
        x = np.unique(cases.floats(seed, (10,), 3.0) + np.float32(50))
        weights = np.exp(spread * cases.floats(seed + 20, x.shape).astype(np.float64))
        for given in (weights, np.where(np.arange(len(x)) == seed, 2.0 ** (5 * spread), weights)):
            count = 2 + seed % 4
            centres = kmeans.kmeans(x, count, given)
            exact, weighed = ([Fraction(float(v)) for v in row] for row in (x, given))
            error = sum(w * min((v - Fraction(c)) ** 2 for c in centres) for v, w in zip(exact, weighed))
            least = least_error(np.array(exact), np.array(weighed), count)
            rounding = max(weighed) * Fraction(2**-50 * 60) ** 2  # of a centre in float64
            assert len(centres) == count and error <= least * (1 + Fraction(1, 10**9)) + rounding


def test_kmeans_of_many_values_of_which_few_count():
    """Values of great weight are levels, however many others lie around them."""
    x = NORMAL[:30_000]
    for heavy in (1e15, 1e30, 1e300):
        weights = np.where(np.arange(len(x)) % 2000 == 0, heavy, 1.0)
        book = Codebook.kmeans(x, 16, weights)
        assert_same(book.levels[np.isin(book.levels, x[::2000])], np.sort(x[::2000]))
    assert_same(Codebook.kmeans(x, 4, np.full(len(x), 1e308)).levels, Codebook.kmeans(x, 4).levels)
    assert_same(Codebook.kmeans(x, 4, np.full(len(x), 5e-324)).levels, Codebook.kmeans(x, 4).levels)


def test_kmeans_weights_are_multiplicities():
    x, times = cases.floats(1, (300,)), cases.ints(2, (300,), 0, 4)
    times[:2] = 0
    want = Codebook.kmeans(np.repeat(x, times), 7)
    np.testing.assert_allclose(Codebook.kmeans(x, 7, times.astype(float)).levels, want.levels, rtol=1e-6)
    few = np.float32([[3, 3, -1], [-1, 3, 3]])
    assert_same(Codebook.kmeans(few, 16).levels, np.float32([-1, 3]))
    assert_same(Codebook.kmeans(few, 1, np.float32([[0, 0, 1], [1, 0, 0]])).levels, np.float32([-1]))


def test_kmeans_of_many_values():
    """More than there are places to cut: as good on what it was made from as Lloyd-Max, outliers or not."""
    for bits in (1, 3, 6):
        assert distortion(Codebook.kmeans(NORMAL, 2**bits)) >= distortion(Codebook.lloyd_max("normal", 2**bits)) - 1e-3
    x = np.append(NORMAL[:100_000], np.float32([-3e5, 1e6]))
    book = Codebook.kmeans(x, 18)
    assert book.levels[0] == -3e5 and book.levels[-1] == 1e6
    assert abs(distortion(book, NORMAL[:100_000]) - 20.22) < 0.1


def test_kmeans_of_many_values_is_near_the_optimum(monkeypatch):
    x = cases.floats(3, (9000,)) ** 3
    found = [distortion(Codebook.kmeans(x, count), x) for count in (2, 5, 16)]
    monkeypatch.setattr(kmeans, "CUTS", 9000)
    for count, mine in zip((2, 5, 16), found):
        assert -1e-6 <= distortion(Codebook.kmeans(x, count), x) - mine < 1e-3


def test_nf4():
    levels = Codebook.nf4().levels
    assert len(levels) == 16 and (levels[0], levels[7], levels[-1]) == (-1, 0, 1)
    scales = np.float32(np.arange(2.7, 3.0, 0.02))
    best = max(decibels(NORMAL, scale * levels[Codebook.nf4().encode(NORMAL / scale)]) for scale in scales)
    assert abs(best - 20.04) <= 0.03


def test_logarithmic():
    for bits in range(2, 9):
        levels = Codebook.logarithmic(bits).levels
        powers = [2.0**e for e in range(2 ** (bits - 1) - 1)]
        assert levels.tolist() == [-p for p in powers[::-1]] + [0] + powers
    x = cases.floats(1, (300,), 70.0)
    assert Codebook.logarithmic(4).encode(x).tolist() == nearest(x, Codebook.logarithmic(4).levels)


def test_bad_input():
    book, x = Codebook.nf4(), np.zeros(3, np.float32)
    for bad in ("a", None, [1j], [True], object(), ["a", 1]):
        raises(TypeError, "levels", Codebook, bad)
    for bad in ([], [[1.0]], 1.0, np.zeros(65537), [np.nan], [np.inf, 1], [1e39]):
        raises(ValueError, "levels", Codebook, bad)
    for bad in (x.astype(float), x.astype(int), "x", None):
        raises(TypeError, "x", book.encode, bad)
        raises(TypeError, "x", Codebook.kmeans, bad, 2)
    raises(ValueError, "x", book.encode, np.float32([0, np.nan]))
    for bad in (x[:0], np.float32([np.inf]), np.float32([np.nan, 1])):
        raises(ValueError, "x", Codebook.kmeans, bad, 2)
    raises(TypeError, "out", book.encode, x, np.zeros(3, np.uint16))
    raises(ValueError, "out", book.encode, x, np.zeros(2, np.uint8))
    raises(ValueError, "out", book.encode, x, x.view(np.uint8)[:3])
    raises(TypeError, "codes", book.decode, x)
    for bad in (np.int8([-1]), np.uint8([16]), [3, 99]):
        raises((ValueError, TypeError), "codes", book.decode, bad)
    for bad in (0, -1, 4097, 2**70):
        raises(ValueError, "levels", Codebook.kmeans, x, bad)
        raises(ValueError, "levels", Codebook.lloyd_max, "normal", bad)
    for bad in ([1, 2], x[:2], -x - 1, x * np.nan, x):
        raises((TypeError, ValueError), "weights", Codebook.kmeans, x, 2, bad)
    for bad in [(1, 1, 4), (2, 1, 4), (np.nan, 1, 4), (0, np.inf, 4), (0, 1e39, 4), (-(10**400), 1, 4), (0, 1e-45, 4), (0, 1, 1), (0, 1, 65537)]:
        raises(ValueError, "low|high|levels", Codebook.uniform, *bad)
    raises(TypeError, "low", Codebook.uniform, "a", 1, 4)
    raises(ValueError, "density", Codebook.lloyd_max, "gauss")
    raises(TypeError, "density", Codebook.lloyd_max, 3)
    for bad in (np.negative, np.zeros_like, lambda x: x[0], lambda x: x * np.nan):
        raises(ValueError, "density", Codebook.lloyd_max, bad, 4, (0, 1))
    for bad in (None, (1, 1), (1, 0), 3, (0, np.inf), (1, 2, 3)):
        raises(ValueError, "support", Codebook.lloyd_max, np.ones_like, 4, bad)
    raises(ValueError, "support", Codebook.lloyd_max, "normal", 4, (-1, 1))
    for bad in (0, 1, 9):
        raises(ValueError, "bits", Codebook.logarithmic, bad)
