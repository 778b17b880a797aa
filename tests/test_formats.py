"""quantize_weight to tables, signs and trellises: the oracle's codes and scales, and the least errors known."""

import itertools
import math
import pickle

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from weight_cases import assert_same_weight, packed, weight

import qkernels
from qkernels import QuantizedWeight, ref
from qkernels.formats import FORMATS

SHAPES = [(1, 1), (17, 33), (12, 128), (3, 300), (5, 0), (0, 5), (0, 0)]
CODED = {"nf4": ("minmax", "mse"), "codebook4": ("mse", "minmax"), "log4": ("mse", "minmax"), "binary": ("mse",),
         "ternary": ("mse", "absmean")}  # fmt: skip
TRELLISES = ("trellis2", "trellis3", "trellis4")
NORMAL = np.random.default_rng(5).standard_normal((64, 16384)).astype(np.float32)


def matrix(n, k, seed=1):
    """Groups of several sizes, some of one sign, some of zeros, one of a single value."""
    w = cases.floats(seed, (n, k), 0.3) * cases.scales(seed + 1, (n, k), 1.0)
    w[1::3] += np.float32(0.4)
    w[2::5, :40] = 0
    w[4::7] = np.float32(-0.3)
    return w


def decibels(w, qw):
    return 10 * math.log10(np.square(w, dtype=float).sum() / np.square(qw.dequantize() - w, dtype=float).sum())


def table_of(qw):
    return {"table": qw.levels} if qw.format == "codebook4" else {}


@pytest.mark.parametrize("format", CODED)
def test_the_oracle_has_the_same_codes_and_scales(isa, format):
    for (n, k), group_size, method in itertools.product(SHAPES, (None, 32, 128), CODED[format]):
        w = matrix(n, k)
        for scale_dtype in ("float16", "float32"):
            options = {"group_size": group_size, "method": method, "scale_dtype": scale_dtype}
            got = qkernels.quantize_weight(w, format, **options)
            want = cases.oracle(ref.quantize_weight, w, format, **options, **table_of(got))
            assert_same_weight(got, want, (n, k, options))
            assert_same(got.dequantize(), want.dequantize(), (n, k, options))
            assert got.shape == (n, k) and got.symmetric and (got.window, got.seed) == (None, None)
    first = qkernels.quantize_weight(w, format, method=CODED[format][0])
    assert_same(qkernels.quantize_weight(w, format).dequantize(), first.dequantize())


@pytest.mark.parametrize("importance", [None, "columns", "all"])
@pytest.mark.parametrize("codebook", ["tensor", "row"])
def test_codebooks(isa, codebook, importance):
    """A table that was trained, ascending; codes and scales that the oracle finds for it."""
    for (n, k), group_size in itertools.product([(9, 200), (2, 7), (6, 65), (0, 3), (3, 0)], (None, 64)):
        w = matrix(n, k)
        weights = {None: None, "columns": cases.scales(3, (k,), 1.0), "all": cases.scales(4, (n, k), 1.0)}[importance]
        options = {"group_size": group_size, "importance": weights}
        got = qkernels.quantize_weight(w, "codebook4", codebook=codebook, **options)
        assert got.levels.dtype == np.int8 and got.levels.shape == ((n, 16) if codebook == "row" else (16,))
        assert (np.diff(got.levels.astype(int), axis=-1) >= 0).all()
        counts = None if weights is None else np.broadcast_to(weights, w.shape).astype(np.float64)
        want = ref.quantize_weight(w, "codebook4", group_size=group_size, importance=counts, table=got.levels)
        assert_same_weight(got, want, (n, k, group_size))


@pytest.mark.any_isa
def test_codebooks_fit_the_weight():
    """Better than every published table on what is like none; importance moves the error to where it costs less."""
    w = cases.floats(1, (20, 512)) ** 2 + np.float32(0.1)
    w *= cases.scales(2, (20, 1), 1.0)
    for group_size in (None, 64):
        best = decibels(w, qkernels.quantize_weight(w, "codebook4", group_size=group_size))
        by_row = decibels(w, qkernels.quantize_weight(w, "codebook4", group_size=group_size, codebook="row"))
        assert by_row > best > decibels(w, qkernels.quantize_weight(w, "nf4", group_size=group_size, method="mse")) + 3
    importance = np.where(np.arange(512) % 2, 1.0, 1e-4)
    plain, moved = (qkernels.quantize_weight(NORMAL[:, :512], "codebook4", importance=x) for x in (None, importance))
    errors = [np.square(qw.dequantize() - NORMAL[:, :512], dtype=float).sum(axis=0) for qw in (plain, moved)]
    assert errors[1][1::2].sum() < errors[0][1::2].sum() and errors[1][::2].sum() > errors[0][::2].sum()


@pytest.mark.any_isa
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("codebook", ["tensor", "row"])
def test_codebooks_where_few_values_count(codebook):
    """Importances of any range, and rows of any size: the error of what counts is not above that of a published table
    (one row's scale and 16 levels represent a value that alone counts)."""
    w, rng = NORMAL[:12, :96], np.random.default_rng(3)
    alone = (np.arange(96) == 3).astype(np.float64)
    for importance in (alone * 1e308, alone * 5e-324, 1 + 1e16 * alone, np.full(96, 1e308),
                       *(np.exp(spread * rng.standard_normal(w.shape)) for spread in (10, 60))):
        qw, plain = (qkernels.quantize_weight(w, format, method="mse", **options) for format, options in [
            ("codebook4", {"codebook": codebook, "importance": importance}), ("nf4", {})])
        counts = np.broadcast_to(importance / importance.max(), w.shape)
        errors = [(counts * np.square(weight.dequantize() - w, dtype=float)).sum() for weight in (qw, plain)]
        assert errors[0] <= errors[1]
    for size in (1e-9, 1e-38, 0, 1e30):
        mixed = w * np.where(np.arange(12)[:, None] % 2, np.float32(size), np.float32(1))
        qw, plain = (qkernels.quantize_weight(mixed, format, method="mse", scale_dtype="float32", **options)
                     for format, options in [("codebook4", {"codebook": codebook}), ("nf4", {})])
        for rows in (slice(0, None, 2), slice(1, None, 2)):
            errors = [np.square(weight.dequantize()[rows] - mixed[rows], dtype=float).sum() for weight in (qw, plain)]
            assert errors[0] <= 1.1 * errors[1] + 1e-80  # a trained table may have no 0


@pytest.mark.any_isa
@pytest.mark.parametrize("format, method, bar", [
    ("binary", "rtn", 4.40), ("ternary", "rtn", 7.21), ("ternary", "absmean", 5.79), ("nf4", "mse", 20.04),
    ("codebook4", "rtn", 20.22), ("codebook4", "minmax", None),
])  # fmt: skip
def test_distortion_of_the_normal_distribution(format, method, bar):
    """What theory has for the best scale: each row has one, so that a row may do a little better."""
    found = decibels(NORMAL, qkernels.quantize_weight(NORMAL, format, method=method))
    assert found > 17 if bar is None else abs(found - bar) < 0.04


@pytest.mark.any_isa
def test_signs_are_the_least_squares():
    w = matrix(9, 96)
    size = np.abs(w).astype(float)
    got = qkernels.quantize_weight(w, "binary", scale_dtype="float32")
    assert_same(got.scales, size.mean(axis=1).astype(np.float32))
    got = qkernels.quantize_weight(w, "ternary", scale_dtype="float32")
    errors = np.square(got.dequantize() - w, dtype=float).sum(axis=1)
    for threshold in np.unique(size):
        is_one = size >= threshold
        scale = (size * is_one).sum(axis=1) / np.maximum(is_one.sum(axis=1), 1)
        others = np.square(np.where(is_one, size - scale[:, None], size)).sum(axis=1)
        assert (errors <= others * (1 + 1e-6) + 1e-12).all()
    got = qkernels.quantize_weight(w, "ternary", method="absmean", scale_dtype="float32")
    scale = size.mean(axis=1).astype(np.float32)[:, None]
    assert_same(got.dequantize(), np.clip(np.rint(w / scale), -1, 1) * scale + np.float32(0))


@pytest.mark.any_isa
def test_log4_takes_the_nearest_power():
    w = cases.floats(1, (1, 4000), 80.0)
    w[0, :9] = [64, 0, 0.5, 1.5, -1.5, 3, -3, 95, -200]
    qw = qkernels.quantize_weight(w, "log4", method="minmax", scale_dtype="float32")
    book = qkernels.Codebook.logarithmic(4)
    assert_same(qw.dequantize(), book.decode(book.encode(w / qw.scales)) * qw.scales + np.float32(0))


def test_zero_and_huge_weights(isa):
    zeros = np.zeros((3, 70), np.float32)
    for format in FORMATS:
        for rotate in (False, True):
            got = qkernels.quantize_weight(zeros, format, group_size=32, rotate=rotate)
            assert (np.abs(got.dequantize()) <= 127 * 2.0**-24).all() and (got.scales > 0).all()
    w = np.float32([[3e38, -3e38, 1e38] + [0] * 61, [1e8] * 64])
    for format, methods in CODED.items():
        for method in methods:
            text = raises(ValueError, "scale_dtype", qkernels.quantize_weight, w, format, method=method)
            assert "scale_dtype='float32'" in text
            got = qkernels.quantize_weight(w, format, method=method, scale_dtype="float32")
            want = ref.quantize_weight(w, format, method=method, scale_dtype="float32", **table_of(got))
            assert_same_weight(got, want)
            tiny = qkernels.quantize_weight(w * np.float32(1e-30) * np.float32(1e-17), format, method=method)
            assert (tiny.scales == np.float16(2.0**-24)).all()


@pytest.mark.parametrize("format", TRELLISES)
def test_trellises(isa, format):
    """The streams mean what the oracle says; they are those of the encoder, which has tests of its own."""
    for (n, k), group_size, window in itertools.product([(3, 300), (2, 40), (0, 5), (4, 0)], (None, 64), (None, 12)):
        w = NORMAL[:n, :k]
        qw = qkernels.quantize_weight(w, format, group_size=group_size, window=window)
        stream, scales, _ = qw.packed.unpack()
        levels = ref.trellis.fine_levels(12) if window else qw.levels
        want = ref.weight_of_stream(stream, scales, int(format[-1]), group_size, k, levels, window)
        assert_same(qw.dequantize(), want.dequantize())
        assert (qw.shape, qw.window, qw.levels is None) == ((n, k), window, window is not None)
        assert not w.size or decibels(w, qw) > 5.5 * int(format[-1]) - 2


@pytest.mark.parametrize("format", FORMATS)
def test_rotation(isa, format):
    """Quantizes the rotated rows; products rotate x alike, dequantize rotates back."""
    w, x, bias = matrix(9, 96), cases.floats(2, (2, 3, 96)), cases.floats(3, (9,))
    w[3, 5] = 40
    qw = qkernels.quantize_weight(w, format, group_size=32, rotate=True, seed=11)
    plain = qkernels.quantize_weight(qkernels.hadamard(w, seed=11), format, group_size=32)
    assert qw.seed == 11 and plain.seed is None and "rotated" in repr(qw)
    assert_same(qw.scales, plain.scales)
    assert_same(qw.dequantize(), qkernels.hadamard(plain.dequantize(), seed=11, inverse=True))
    for options in ({}, {"activations": "float32", "activation": "relu"}):
        want = qkernels.linear(qkernels.hadamard(x, seed=11), plain, bias, **options)
        assert_same(qkernels.linear(x, qw, bias, **options), want)
    exact = x @ qw.dequantize().T
    np.testing.assert_allclose(qkernels.linear(x, qw, activations="float32"), exact, atol=1e-4)
    assert_same(pickle.loads(pickle.dumps(qw)).dequantize(), qw.dequantize())
    assert_same(qkernels.quantize_weight(w, format, group_size=32, rotate=True).dequantize(),
                qkernels.quantize_weight(w, format, group_size=32, rotate=True, seed=0).dequantize())


@pytest.mark.filterwarnings("error")
def test_hostile_states(isa):
    good = {name: packed(weight(1, 5, 100, name, 32)).to_state()
            for name in ("nf4", "codebook4", "codebook4 by row", "binary", "ternary", "trellis3", "trellis3 12")}
    table = good["codebook4"]["levels"]
    assert "levels" not in good["nf4"] and good["trellis3 12"]["window"] == 12 and "window" not in good["trellis3"]
    zero_points, codes = np.zeros((5, 4), np.uint8), good["trellis3"]["codes"]
    wrong = [
        *(("codebook4", "levels", bad) for bad in (table[:15], table[None], table.view(np.uint8), "a", None)),
        *(("codebook4 by row", "levels", bad) for bad in (np.tile(table, (4, 1)), np.tile(table, (5, 2)))),
        *((name, "levels", table) for name in ("nf4", "binary", "ternary", "trellis3")),
        *((name, "zero_points", zero_points) for name in good),
        *(("trellis3 12", "window", bad) for bad in (11, 17, -1, 6, 0, 12.0, [12], "12", 2**70)),
        ("nf4", "window", 12), ("ternary", "codes", good["ternary"]["codes"] * 0), ("trellis3", "codes", codes[:, :-1]),
        ("trellis3", "codes", codes.astype(np.int8)), ("trellis3", "codes", np.pad(codes, ((0, 0), (0, 12)))),
        *((name, "seed", bad) for name in good for bad in (-1, 2**64, 1.5, [3], "a")),
    ]  # fmt: skip
    for name, entry, value in wrong:
        text = raises(ValueError, "state", QuantizedWeight.from_state, {**good[name], entry: value})
        assert entry in text, (name, text)
    missing = {name: entry for name, entry in good["codebook4"].items() if name != "levels"}
    assert "levels" in raises(ValueError, "state", QuantizedWeight.from_state, missing)
    assert QuantizedWeight.from_state({**good["nf4"], "seed": np.uint64(2**64 - 1)}).seed == 2**64 - 1
