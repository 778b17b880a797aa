"""AdaRound: the best of all roundings where they can be tried, else one that no block of columns can better."""

import itertools

import cases
import numpy as np
import pytest
from cases import assert_same

from qkernels import QuantizedWeight, adaround
from qkernels.groups import Groups
from qkernels.ref import adaround as oracle
from rounding_cases import grid, quantized, second_moments

pytestmark = [pytest.mark.any_isa, pytest.mark.filterwarnings("error")]


def quantize_adaround(w, grid, group_size, ranges, hessian):
    return quantized(w, grid, group_size, ranges, rounded=adaround.round_adaptively, hessian=hessian)


def by_weight(x, k, group_size):
    return np.repeat(x, group_size or max(k, 1), axis=1)[:, :k]


def losses(w, made, hessian, group_size):
    codes, scales, zero_points = made
    scales, zero_points = (by_weight(x.astype(np.float64), w.shape[1], group_size) for x in (scales, zero_points))
    error = scales * (codes - zero_points) - w
    return np.einsum("nk,nk->n", error @ hessian, error)


@pytest.mark.parametrize("ranges", ["minmax", "mse"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("k", [1, 5, 9, 12])
def test_brute_force(k, bits, symmetric, ranges):
    """Ranges of "mse" leave weights out, which can be rounded one way only."""
    w = cases.floats(k, (6 if k < 12 else 2, k))
    w[1] = 0
    for group_size, hessian in [(None, second_moments(k)), (32, second_moments(k, rows=3)), (None, np.zeros((k, k)))]:
        got = quantize_adaround(w, grid(bits, symmetric), group_size, ranges, hessian)
        _, scales, zero_points = quantized(w, grid(bits, symmetric), group_size, ranges)
        assert_same(got[1], scales)
        assert_same(got[2], zero_points)
        _, want = oracle.best_rounding(w, *(by_weight(x, k, group_size) for x in got[1:]), 2**bits - 1, hessian)
        np.testing.assert_allclose(losses(w, got, hessian, group_size), want, rtol=1e-9, atol=1e-12)


def test_brute_force_of_16_columns():
    w, hessian = cases.floats(5, (1, 16)), second_moments(16)
    got = quantize_adaround(w, grid(4), None, "minmax", hessian)
    codes, _ = oracle.best_rounding(w, *(by_weight(x, 16, None) for x in got[1:]), 15, hessian)
    assert_same(got[0], codes)
    assert (codes != quantized(w, grid(4), None, "minmax")[0]).any()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group_size", [None, 32, 64])
def test_better_than_nearest(bits, group_size):
    k = 100
    w, hessian = cases.floats(bits, (24, k)), second_moments(k)
    nearest = losses(w, quantized(w, grid(bits), group_size, "minmax"), hessian, group_size)
    loss = losses(w, quantize_adaround(w, grid(bits), group_size, "minmax", hessian), hessian, group_size)
    assert (loss <= nearest * (1 + 1e-9)).all()
    assert loss.sum() < 0.5 * nearest.sum()


@pytest.mark.parametrize("group_size", [None, 32])
def test_no_block_can_be_rounded_better(group_size):
    """Blocks of 8 columns from the start of each group; of each one all roundings are tried."""
    k, bits = 43, 4
    w, hessian = cases.floats(1, (3, k)), second_moments(k)
    codes, scales, zero_points = quantize_adaround(w, grid(bits), group_size, "mse", hessian)
    scale, zero = (by_weight(x.astype(np.float32), k, group_size) for x in (scales, zero_points))
    lower = (np.floor(w / scale) + zero).clip(0, 15)
    upper = (np.floor(w / scale) + zero + 1).clip(0, 15)
    assert ((codes == lower) | (codes == upper)).all()
    least = losses(w, (codes, scales, zero_points), hessian, group_size)
    starts = sorted({*range(0, k, 8)} if group_size is None else {*range(0, 32, 8), 32, 40})
    for start, stop in itertools.pairwise([*starts, k]):
        for up in itertools.product((False, True), repeat=stop - start):
            other = codes.copy()
            other[:, start:stop] = np.where(up, upper[:, start:stop], lower[:, start:stop])
            assert (losses(w, (other, scales, zero_points), hessian, group_size) >= least * (1 - 1e-8)).all()


@pytest.mark.parametrize("group_size", [None, 32])
def test_uncorrelated_inputs_round_to_nearest(group_size):
    w = cases.floats(2, (9, 70))
    w[:, ::3] = np.float32(0.25)  # halfway between levels here and there
    hessian = np.diag(cases.scales(3, (70,)).astype(np.float64) * (np.arange(70) % 5 > 0))  # and columns without inputs
    for got, want in zip(quantize_adaround(w, grid(4), group_size, "minmax", hessian),
                         quantized(w, grid(4), group_size, "minmax")):
        assert_same(got, want)


def test_scaled_inputs_and_weights_round_alike():
    w, hessian = cases.floats(4, (6, 64)), second_moments(64)
    want = quantize_adaround(w, grid(4, scale_dtype="float32"), 32, "minmax", hessian)[0]
    scaled = quantize_adaround(
        w * np.float32(2**-9), grid(4, scale_dtype="float32"), 32, "minmax", hessian * 2.0**30)[0]
    assert_same(scaled, want)


def test_resumed_slabs(monkeypatch):
    monkeypatch.setattr(adaround, "SLAB", 3 * 64)
    w, hessian = cases.floats(5, (8, 64)), second_moments(64)
    whole = quantize_adaround(w, grid(4), 32, "minmax", hessian)[0]
    groups = Groups(w, 32)
    problem = groups, grid(4), grid(4).fit(groups, "minmax"), hessian
    slabs = adaround.rounded_slabs(*problem)
    kept = [next(slabs), next(slabs)]
    kept += adaround.rounded_slabs(*problem, start=sum(map(len, kept)))
    assert [len(slab) for slab in kept] == [3, 3, 2]
    assert_same(np.concatenate(kept), whole)


@pytest.mark.parametrize("shape", [(0, 64), (3, 0), (0, 0)])
@pytest.mark.parametrize("group_size", [None, 32])
def test_empty(shape, group_size):
    made = quantize_adaround(np.zeros(shape, np.float32), grid(4), group_size, "mse", np.eye(shape[1]))
    assert made[0].shape == shape and made[1].shape == made[2].shape
    assert QuantizedWeight("int4", *made, group_size).shape == shape


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("outlier", [1, 1e4])
def test_the_descent_settles_where_inputs_hardly_vary(rows, outlier, monkeypatch):
    """Products of few inputs, rounded to float32, have no Cholesky factor, and costs of about 0 come out below it."""
    searches = []
    search = adaround._search
    monkeypatch.setattr(adaround, "_search", lambda *problem: searches.append(1) or search(*problem))
    k = 96
    x = np.maximum(cases.floats(7, (rows, k)), 0)
    x[:, :8] = 0
    x[:, 20] *= np.float32(outlier)
    hessian = (x.T @ x).astype(np.float64) / rows
    w = cases.floats(8, (40, k))
    for bits in (2, 4, 8):
        searches.clear()
        made = quantize_adaround(w, grid(bits), 32, "minmax", hessian)
        assert len(searches) <= 40 * (k / 8)
        nearest = losses(w, quantized(w, grid(bits), 32, "minmax"), hessian, 32)
        assert (losses(w, made, hessian, 32) <= nearest).all()


def test_bad_hessian():
    w = cases.floats(6, (2, 32))
    cases.raises(ValueError, "hessian", quantize_adaround, w, grid(4), None, "minmax", -np.eye(32))
