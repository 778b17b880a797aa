"""Several Python threads call at once, and each gets what it would have got alone."""

from concurrent.futures import ThreadPoolExecutor

import cases
import numpy as np
from cases import assert_same

import qkernels


def jobs():
    """Calls of every operation, some of them sharing their inputs."""
    a, b = cases.bytes8(1, (19, 300), np.uint8), cases.bytes8(2, (300, 70), np.int8)
    x, w = cases.floats(3, (23, 300)), cases.floats(4, (40, 300))
    packed, qw, scales = qkernels.pack_b(b), qkernels.quantize_weight(w), cases.scales(5, (70,))
    small = cases.ints(6, (9, 501), -8, 7, np.int8)
    return [
        lambda: qkernels.int8_gemm(a, b, a_zero_point=9),
        lambda: qkernels.int8_gemm(a, packed, a_zero_point=200),
        lambda: qkernels.int8_gemm(a[:1], packed, scales, activation="relu"),
        lambda: qkernels.int8_gemm(a, packed, scales, out_dtype="int8", out_scale=3.0),
        lambda: qkernels.int8_gemm(
            a, packed, scales, out_dtype="uint8", out_scale=3.0, requant="fixed"
        ),
        lambda: qkernels.quantize(x, 0.01),
        lambda: qkernels.fake_quantize(x, 0.01, 3),
        lambda: qkernels.dynamic_quantize(x, axis=0)[0],
        lambda: qkernels.choose_qparams(x, axis=1).scale,
        lambda: qkernels.pack(small, 4),
        lambda: qkernels.unpack(qkernels.pack(small, 4), 4, 501),
        lambda: qkernels.linear(x, qw),
        lambda: qkernels.quantize_weight(w).dequantize(),
        lambda: qkernels.pack_b(b).unpack(),
    ]


def test_calls_from_several_threads(isa):
    todo = jobs()
    alone = [job() for job in todo]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: todo[i % len(todo)](), range(12 * len(todo))))
    for i, got in enumerate(together):
        assert_same(got, alone[i % len(todo)], i % len(todo))


def test_errors_stay_in_their_threads(isa):
    x = cases.floats(1, (40, 100))
    spoiled = x.copy()
    spoiled[-1, -1] = np.nan
    want = qkernels.quantize(x, 0.01)

    def one(i):
        if i % 2:
            return cases.raises(ValueError, "x", qkernels.quantize, spoiled, 0.01)
        return assert_same(qkernels.quantize(x, 0.01), want)

    with ThreadPoolExecutor(4) as pool:
        messages = list(pool.map(one, range(80)))
    assert all(messages[1::2]) and messages[0] is None
