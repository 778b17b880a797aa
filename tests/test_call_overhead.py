"""What a call costs beside its arithmetic: small products against np.matmul on float32 of the same shape.

The two take turns, so that a slow or busy machine slows both. The limits are about four times what is usual: they catch
work per call or per matrix that went back to Python, not a slower kernel.
"""

import statistics
import time

import cases
import numpy as np
import pytest

import qkernels

pytestmark = pytest.mark.any_isa
SIZE, ROUNDS, CALLS = 16, 41, 50
A, B = cases.bytes8(1, (SIZE, SIZE), np.uint8), cases.bytes8(2, (SIZE, SIZE), np.int8)
X = cases.floats(3, (SIZE, SIZE))
PACKED, SCALES, BIAS = qkernels.pack_b(B), cases.scales(4, (SIZE,)), cases.floats(5, (SIZE,))
LAYER = {"row_scales": SCALES, "a_zero_point": A[0], "bias": BIAS, "activation": "relu"}


def seconds_of(call):
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return time.perf_counter() - start


def times_matmul(call):
    """How many times as long as np.matmul a call takes: the median of many rounds."""
    return statistics.median(seconds_of(call) / seconds_of(lambda: np.matmul(X, X)) for _ in range(ROUNDS))


def test_plain_product():
    assert times_matmul(lambda: qkernels.int8_gemm(A, PACKED)) < 6


def test_product_of_a_real_layer():
    out = np.empty((SIZE, SIZE), np.float32)
    assert times_matmul(lambda: qkernels.int8_gemm(A, PACKED, SCALES, **LAYER)) < 8
    assert times_matmul(lambda: qkernels.int8_gemm(A, PACKED, SCALES, out=out, **LAYER)) < 8


def test_unpacked_product():
    assert times_matmul(lambda: qkernels.int8_gemm(A, B, b_zero_point=3)) < 8


def test_each_product_of_a_batch():
    count = 64
    a, b = np.repeat(A[None], count, axis=0), np.repeat(B[None], count, axis=0)
    assert times_matmul(lambda: qkernels.int8_gemm(a, b)) < 2 * count


def test_linear():
    qw = qkernels.quantize_weight(X)
    assert times_matmul(lambda: qkernels.linear(X, qw, BIAS)) < 25
