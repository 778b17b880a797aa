"""HQQ: the vectorized iteration is the loop over groups, and does what it is for."""

import cases
import numpy as np
import pytest
from cases import assert_same

from qkernels import QuantizedWeight, hqq
from qkernels.ref import hqq as oracle
from qkernels.ref.weights import Weight
from rounding_cases import grid, quantized

pytestmark = [pytest.mark.any_isa, pytest.mark.filterwarnings("error")]


def quantize_hqq(w, grid, group_size):
    return quantized(w, grid, group_size, fit=hqq.fit)


def heavy_tailed(seed, shape):
    """Mostly small values, and a few large ones."""
    return cases.floats(seed, shape) ** 3 * np.float32(0.2)


def errors(w, codes, scales, zero_points, bits, group_size):
    return Weight(codes, scales, zero_points, bits, group_size).dequantize().astype(np.float64) - w


@pytest.mark.parametrize("scale_dtype", ["float16", "float32"])
@pytest.mark.parametrize(("k", "group_size"), [(1, None), (40, None), (64, 32), (70, 32), (100, 96)])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_oracle(bits, symmetric, k, group_size, scale_dtype):
    w = heavy_tailed(bits + k, (5, k))
    w[1] = 0
    w[2] = np.abs(w[2]) + np.float32(1)
    w[3] *= np.float32(1e-6)
    got = quantize_hqq(w, grid(bits, symmetric, scale_dtype), group_size)
    want = oracle.quantize_hqq(w, bits, group_size, scale_dtype, symmetric)
    for array, expected in zip(got, (want.codes, want.scales, want.zero_points)):
        assert_same(np.ascontiguousarray(array), expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_never_worse_than_the_range_and_mostly_better(bits):
    w = heavy_tailed(3, (64, 128))
    for group_size in (None, 32):
        mean = [np.abs(errors(w, *made, bits, group_size)).reshape(-1, group_size or 128).mean(axis=1)
                for made in (quantize_hqq(w, grid(bits), group_size),
                                  quantized(w, grid(bits), group_size, "minmax"))]
        assert (mean[0] <= mean[1] * (1 + 1e-6)).all()
        assert mean[0].sum() < {2: 0.87, 4: 0.96, 8: 0.998}[bits] * mean[1].sum()


def test_few_large_errors_do_not_decide():
    """A group of small weights and one large one: sum |e|^0.7 is less than where the squared error is searched for."""
    w = heavy_tailed(4, (32, 64)) * np.float32(0.1)
    w[:, 5] = 1
    power = [(np.abs(errors(w, *made, 4, None)) ** 0.7).sum()
             for made in (quantize_hqq(w, grid(4), None), quantized(w, grid(4), None, "mse"))]
    assert power[0] < power[1]


def test_does_not_depend_on_the_size_of_weights():
    w = heavy_tailed(5, (8, 64))
    codes, scales, zero_points = quantize_hqq(w, grid(4, scale_dtype="float32"), 32)
    other = quantize_hqq(w * np.float32(2**-7), grid(4, scale_dtype="float32"), 32)
    for got, want in zip(other, (codes, scales * np.float32(2**-7), zero_points)):
        assert_same(np.ascontiguousarray(got), np.ascontiguousarray(want))


@pytest.mark.parametrize("shape", [(0, 64), (3, 0), (0, 0)])
@pytest.mark.parametrize("group_size", [None, 32])
def test_empty(shape, group_size):
    codes, scales, zero_points = quantize_hqq(np.zeros(shape, np.float32), grid(4), group_size)
    assert codes.shape == shape and scales.shape == zero_points.shape
    assert QuantizedWeight("int4", codes, scales, zero_points, group_size).shape == shape
