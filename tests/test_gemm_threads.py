"""int8_gemm gives the same bytes on any number of threads, also when many Python threads call it."""

import os
from concurrent.futures import ThreadPoolExecutor

import cases
import numpy as np
import pytest
from cases import assert_same

import qkernels

NUMBERS = [2, 3, 5, 8]
SHAPES = [(300, 700, 500), (1, 4096, 1024), (4, 1000, 1100), (37, 1001, 301), (1501, 17, 211), (5000, 1, 601)]


def operands(m, n, k):
    return cases.bytes8(m, (m, k), np.uint8), cases.bytes8(n, (k, n), np.int8)


def outputs(m, n):
    """Options of int8_gemm for each kind of output, with everything that comes by row or by column."""
    scales, row_scales, bias = cases.scales(1, (n,)), cases.scales(2, (m,)), cases.floats(3, (n,))
    zero_points = {"a_zero_point": cases.ints(4, (m,), 0, 255)}
    return {
        "int32": zero_points,
        "float32": {"scales": scales, "row_scales": row_scales, "bias": bias, **zero_points},
        "int8": {"scales": scales, "row_scales": row_scales, "out_dtype": "int8", "out_scale": 0.02, **zero_points},
        "fixed": {"scales": scales, "out_dtype": "uint8", "out_scale": 3.0, "requant": "fixed", "activation": "relu"},
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_any_number_of_threads(isa, shape):
    m, n = shape[:2]
    a, b = operands(*shape)
    zero_points = cases.ints(5, (n,), -128, 127)
    packed = qkernels.pack_b(b, b_zero_point=zero_points)
    for name, options in outputs(m, n).items():
        with qkernels.num_threads(1):
            alone = qkernels.int8_gemm(a, packed, **options)
        if name == "int32":  # exact in float64
            centered = a.astype(np.float64) - options["a_zero_point"][:, None]
            assert (alone == centered @ (b.astype(np.float64) - zero_points)).all()
        for number in NUMBERS:
            with qkernels.num_threads(number):
                assert_same(qkernels.int8_gemm(a, packed, **options), alone, (name, number))
                if name == "int32":  # packing does not know what becomes of the sums
                    assert_same(qkernels.int8_gemm(a, b, b_zero_point=zero_points, **options), alone, number)


def test_sums_beyond_32_bits(isa):
    m, n, k = 30, 70, 40001
    a, b = np.full((m, k), 255, np.uint8), cases.bytes8(1, (k, n), np.uint8)
    with qkernels.num_threads(1):
        alone = qkernels.int8_gemm(a, b, 0.5)
    assert (alone == (255 * b.sum(axis=0, dtype=np.int64)).astype(np.float32) * np.float32(0.5)).all()
    for number in NUMBERS:
        with qkernels.num_threads(number):
            assert_same(qkernels.int8_gemm(a, b, 0.5), alone, number)


def test_strided_output(isa):
    a, b = operands(300, 700, 500)
    want = qkernels.int8_gemm(a, b)
    for out in cases.strided(np.zeros_like(want)).values():
        if out.flags.writeable:
            with qkernels.num_threads(3):
                assert qkernels.int8_gemm(a, b, out=out) is out
            assert (out == want).all()


def test_many_python_threads(isa):
    products = [operands(*shape) for shape in SHAPES]
    packed = [(a, qkernels.pack_b(b)) for a, b in products]
    with qkernels.num_threads(1):
        alone = [qkernels.int8_gemm(a, b) for a, b in products]

    def one(i):
        number = [*NUMBERS, 1][i % 5]
        if i % 7 == 0:
            qkernels.set_num_threads(number)  # between the other threads' calls, or in them
        a, b = (products, packed)[i % 2][i % len(SHAPES)]
        return qkernels.int8_gemm(a, b)

    with qkernels.num_threads(2), ThreadPoolExecutor(6) as pool:
        for i, got in enumerate(pool.map(one, range(120))):
            assert_same(got, alone[i % len(SHAPES)], i)


def test_nan_on_several_threads(isa):
    """An error leaves the threads as they were."""
    a, b = operands(300, 700, 500)
    x, w = cases.floats(1, (300, 500)), cases.floats(2, (700, 500))
    spoiled, spoiled_scales = x.copy(), cases.scales(3, (300,))
    spoiled[-1, -1] = spoiled_scales[-1] = np.nan
    qw = qkernels.quantize_weight(w)
    with qkernels.num_threads(1):
        want = qkernels.linear(x, qw)
    with qkernels.num_threads(4):
        for _ in range(5):
            cases.raises(ValueError, "x", qkernels.linear, spoiled, qw)
            cases.raises(ValueError, "row_scales", qkernels.int8_gemm, a, b, 0.1, row_scales=spoiled_scales)
            assert_same(qkernels.linear(x, qw), want)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="this system does not list a process's threads")
def test_large_products_use_threads():
    a, b = operands(300, 700, 500)
    with qkernels.num_threads(32):
        qkernels.int8_gemm(a, b)
        assert len(os.listdir("/proc/self/task")) > 8
