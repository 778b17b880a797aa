"""quantize_weight and what a QuantizedWeight tells, against the oracle."""

import itertools

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from weight_cases import FORMATS, GROUPS, KINDS, assert_same_weight, packed, weight

import qkernels
from qkernels import ref

SHAPES = [(1, 1), (17, 33), (64, 65), (35, 128), (3, 300), (5, 0), (0, 5), (0, 0)]


def matrix(n, k, seed=1):
    """Groups of several sizes, some of one sign, one of zeros."""
    w = cases.floats(seed, (n, k), 0.3) * cases.scales(seed + 1, (n, k), 1.0)
    w[1::3] += np.float32(0.4)
    w[2::5, :40] = 0
    return w


@pytest.mark.parametrize("format", FORMATS)
def test_quantize_weight(isa, format):
    for (n, k), group_size, symmetric in itertools.product(SHAPES, GROUPS, (True, False)):
        w = matrix(n, k)
        options = {"group_size": group_size, "symmetric": symmetric}
        for scale_dtype in ("float16", "float32"):
            options["scale_dtype"] = scale_dtype
            want = cases.oracle(ref.quantize_weight, w, format, **options)
            got = qkernels.quantize_weight(w, format, **options)
            assert (got.shape, got.format, got.group_size) == ((n, k), format, group_size)
            assert_same_weight(got, want, (n, k, options))
            assert_same(got.dequantize(), want.dequantize(), (n, k, options))
            scales = want.scales[:, 0] if group_size is None else want.scales
            assert (got.scales.dtype, got.scales.shape) == (scales.dtype, scales.shape)
            assert (got.scales == scales).all()
            assert (got.zero_points is None) == symmetric
            if not symmetric:
                assert got.zero_points.shape == scales.shape


def test_scales_are_those_of_choose_qparams(isa):
    w = matrix(9, 200)
    for group_size in (None, 64):
        where = {"axis": 0} if group_size is None else {"group_size": group_size}
        for bits, symmetric in itertools.product((8, 4, 2), (True, False)):
            chosen = qkernels.choose_qparams(w, f"uint{bits}", symmetric=symmetric, **where)
            options = {"group_size": group_size, "symmetric": symmetric}
            got = qkernels.quantize_weight(w, f"int{bits}", scale_dtype="float32", **options)
            assert_same(got.scales, chosen.scale)
            if not symmetric:
                assert_same(got.zero_points, chosen.zero_point)
            got = qkernels.quantize_weight(w, f"int{bits}", **options)
            assert (got.scales == chosen.scale.astype(np.float16)).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse(isa, format, symmetric):
    for (n, k), group_size in itertools.product([(17, 33), (6, 300), (0, 5), (5, 0), (2, 1)], (None, 32, 128)):
        w = matrix(n, k) ** 3
        options = {"group_size": group_size, "symmetric": symmetric}
        plain = qkernels.quantize_weight(w, format, **options)
        best = qkernels.quantize_weight(w, format, method="mse", **options)
        assert_same_weight(best, cases.oracle(ref.quantize_weight, w, format, method="mse", **options))
        size = k if group_size is None else group_size

        def errors(qw):
            squares = np.square(qw.dequantize() - w, dtype=np.float64)
            return np.add.reduceat(squares, np.arange(0, k, max(size, 1)), axis=1) if k else squares

        assert (errors(best) <= errors(plain) * (1 + 1e-12)).all()
        if w.size > 2 and format != "int8":
            assert errors(best).sum() < errors(plain).sum()


def test_mse_in_several_pieces(isa, monkeypatch):
    """A search over more values than it takes at a time."""
    w = matrix(40, 96)
    want = qkernels.quantize_weight(w, "int4", group_size=32, method="mse")
    monkeypatch.setattr(qkernels.groups, "SEARCH_SIZE", 100)
    got = qkernels.quantize_weight(w, "int4", group_size=32, method="mse")
    assert_same(got.dequantize(), want.dequantize())


def test_full_range(isa):
    w = matrix(9, 100)
    for format, method in itertools.product(FORMATS, ("minmax", "mse")):
        options = {"group_size": 32, "full_range": True, "method": method}
        assert_same_weight(qkernels.quantize_weight(w, format, **options), ref.quantize_weight(w, format, **options))
    codes = qkernels.quantize_weight(w, "int2", full_range=True).packed.unpack()[0]
    assert codes.min() == 0 and qkernels.quantize_weight(w, "int2").packed.unpack()[0].min() == 1


def test_scales_beyond_float16(isa):
    w = np.float32([[1e7, 1.0], [0.5, 0.25]])
    text = raises(ValueError, "scale_dtype", qkernels.quantize_weight, w, "int4")
    assert "scale_dtype='float32'" in text
    raises(ValueError, "scale_dtype", qkernels.quantize_weight, w, "int4", method="mse")
    got = qkernels.quantize_weight(w, "int4", scale_dtype="float32")
    assert got.scales.dtype == np.float32 and abs(got.dequantize()[0, 0] - 1e7) < 1
    largest = np.float32(65504 * 7)
    assert qkernels.quantize_weight(np.full((1, 3), largest), "int4").scales == np.float16(65504)
    for size in (1e-9, 3e-7, 1e-38):
        small = qkernels.quantize_weight(np.full((1, 3), size, np.float32), "int4")
        assert small.scales == max(np.float16(size / 7), np.float16(2.0**-24))
        assert (np.abs(small.dequantize() - size) <= 2.0**-24).all()


def test_huge_weights(isa):
    """Ranges and errors beyond float32, and errors of a scale that is rounded down."""
    w = np.float32([[3e38, -3e38, 1e38], [3.4e38, 3.4e38, 0]])
    for symmetric, method in itertools.product((True, False), ("minmax", "mse")):
        options = {"symmetric": symmetric, "method": method, "scale_dtype": "float32"}
        with np.errstate(over="ignore"):
            want = ref.quantize_weight(w, "int8", **options)
            assert_same_weight(qkernels.quantize_weight(w, "int8", **options), want)


def test_strides(isa):
    w = matrix(18, 70)
    for group_size, method in ((None, "minmax"), (32, "mse")):
        want = qkernels.quantize_weight(w, "int4", group_size=group_size, method=method).dequantize()
        for view in cases.strided(w).values():
            got = qkernels.quantize_weight(view, "int4", group_size=group_size, method=method)
            assert_same(got.dequantize(), want)


def test_every_code_and_zero_point_survives_packing(isa):
    for seed, (format, group_size, symmetric, scale_dtype) in enumerate(KINDS):
        for n, k in [(1, 1), (65, 100), (16, 600)]:
            w = weight(seed, n, k, format, group_size, symmetric, scale_dtype)
            qw = packed(w)
            assert_same_weight(qw, w)
            assert_same(qw.dequantize(), w.dequantize())


def test_extreme_scales_survive(isa):
    halves = np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16)  # every positive finite one
    codes = np.full((halves.size, 1), 3, np.uint8)
    qw = packed(ref.Weight(codes, halves[:, None], None, 2, None))
    assert (qw.scales == halves).all()
    assert_same(qw.dequantize(), halves.astype(np.float32)[:, None])
    singles = np.float32([2.0**-149, 2.0**-126, 1, 3.4e38])
    qw = packed(ref.Weight(codes[:4], singles[:, None], None, 2, None))
    assert_same(qw.dequantize(), singles[:, None])


def test_bits_per_weight_counts_everything(isa):
    w = matrix(256, 1024)
    for format, bits in FORMATS.items():
        choices = itertools.product((None, 32, 128), (True, False), ("float16", "float32"))
        for group_size, symmetric, scale_dtype in choices:
            options = {"group_size": group_size, "symmetric": symmetric, "scale_dtype": scale_dtype}
            qw = qkernels.quantize_weight(w, format, **options)
            assert qw.bits_per_weight == 8 * qw.nbytes / (256 * 1024)
            least = bits + (np.dtype(scale_dtype).itemsize + (not symmetric)) * 8 / (group_size or 1024)
            assert least <= qw.bits_per_weight < least + 0.3


def test_repr():
    qw = qkernels.quantize_weight(matrix(64, 128), "int4", group_size=32, symmetric=False)
    assert all(text in repr(qw) for text in ("64x128", "int4", "32", "asymmetric", f"{qw.bits_per_weight:.2f}"))
    assert "group" not in repr(qkernels.quantize_weight(matrix(64, 128)))
