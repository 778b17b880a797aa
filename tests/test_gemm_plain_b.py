"""int8_gemm with a B that is not packed before: panel by panel where one block of rows of A takes each panel, which the L2
cache decides, and all at once for more rows."""

import os

import cases
import numpy as np
import pytest
from cases import assert_same

import qkernels

K, N = 1501, 75  # columns of several panels, the last one narrower


def second_level_cache():
    """At least what the library takes for it."""
    if "SC_LEVEL2_CACHE_SIZE" not in os.sysconf_names:
        return 16 << 20
    return max(os.sysconf("SC_LEVEL2_CACHE_SIZE"), 512 << 10)


# Rows of one tile; of one block, which fills at most about half of the cache; of several.
TILE, BLOCK, BLOCKS = 3, 40, 2 * second_level_cache() // K


def outputs(m):
    scales, row_scales, bias = cases.scales(1, (N,)), cases.scales(2, (m,)), cases.floats(3, (N,))
    ints = cases.ints(4, (N,), -(2**20), 2**20, np.int32)
    return [
        {"bias": ints},
        {"scales": scales, "row_scales": row_scales, "bias": bias},
        {"scales": 1e-4, "bias": ints, "out_dtype": "int8", "out_scale": 0.02, "activation": "relu"},
        {"scales": scales, "out_dtype": "uint8", "out_scale": 3.0, "out_zero_point": 100, "requant": "fixed"},
    ]


@pytest.mark.parametrize("m", [TILE, BLOCK])
@pytest.mark.parametrize("types", cases.SIGNS, ids=lambda t: " x ".join(d.__name__ for d in t))
def test_panel_by_panel(isa, m, types):
    a, b = cases.bytes8(1, (m, K), types[0]), cases.bytes8(2, (K, N), types[1])
    a_zeros, b_zeros = cases.bytes8(3, (m,), types[0]), cases.bytes8(4, (N,), types[1])
    exact = (a - a_zeros[:, None].astype(np.float64)) @ (b - b_zeros.astype(np.float64))
    assert (qkernels.int8_gemm(a, b, a_zero_point=a_zeros, b_zero_point=b_zeros) == exact).all()
    for i, options in enumerate(outputs(m)):
        options["a_zero_point"] = (a_zeros, 0, a_zeros[0], a_zeros)[i]
        for b_zero in (0, b_zeros):
            want = qkernels.int8_gemm(a, qkernels.pack_b(b, b_zero_point=b_zero), **options)
            for number in (1, 2, 3):
                with qkernels.num_threads(number):
                    assert_same(qkernels.int8_gemm(a, b, b_zero_point=b_zero, **options), want, (number, options))


def test_all_at_once(isa):
    rows = cases.bytes8(1, (37, K), np.int8)
    a = np.resize(rows, (BLOCKS, K))
    b, b_zeros = cases.bytes8(2, (K, N), np.uint8), cases.bytes8(3, (N,), np.uint8)
    exact = np.resize((rows - 5.0) @ (b - b_zeros.astype(np.float64)), (BLOCKS, N))
    for number in (1, 2):
        with qkernels.num_threads(number):
            assert (qkernels.int8_gemm(a, b, a_zero_point=5, b_zero_point=b_zeros) == exact).all()


@pytest.mark.parametrize("m", [TILE, BLOCK])
def test_strides(isa, m):
    a, b = cases.bytes8(1, (m, K), np.uint8), cases.bytes8(2, (K, N), np.int8)
    want = a.astype(np.float64) @ b.astype(np.float64)
    for layout, view in cases.strided(b).items():
        assert (qkernels.int8_gemm(a, view) == want).all(), layout


@pytest.mark.parametrize("m", [TILE, BLOCK])
def test_sums_beyond_32_bits(isa, m):
    n, k = 70, 40_001
    a, b = np.full((m, k), 255, np.uint8), cases.bytes8(1, (k, n), np.uint8)
    want = (255 * b.sum(axis=0, dtype=np.int64)).astype(np.float32) * np.float32(0.5)
    assert (qkernels.int8_gemm(a, b, 0.5) == want).all()


def test_batches(isa):
    """B shared by all products, by neighbours, by others, by none."""
    m, n, k = 5, 70, 130
    for left, right in [((3,), ()), ((2, 3), (2, 1)), ((2, 3), (3,)), ((2, 3), (2, 3)), ((4, 1), (4, 1)), ((), (3,))]:
        a, b = cases.bytes8(1, (*left, m, k), np.uint8), cases.bytes8(2, (*right, k, n), np.int8)
        zeros = {"a_zero_point": cases.bytes8(3, (m,), np.uint8), "b_zero_point": cases.bytes8(4, (n,), np.int8)}
        want = (a - zeros["a_zero_point"][:, None].astype(np.float64)) @ (b - zeros["b_zero_point"].astype(np.float64))
        assert (qkernels.int8_gemm(a, b, **zeros) == want).all(), (left, right)
