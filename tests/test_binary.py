"""binary_gemm against the oracle: sizes, data, strides, batches, threads, out, errors."""

import cases
import numpy as np
import pytest
from cases import assert_same, raises

import qkernels
from qkernels import ref

SHAPES = [
    (1, 1, 1), (1, 16, 64), (2, 33, 7), (3, 5, 9), (4, 32, 128), (5, 31, 129), (7, 65, 1001), (9, 40, 32 * 31 + 1),
    (65, 3, 40), (2, 3, 50_001), (0, 3, 8), (3, 0, 8), (3, 4, 0), (0, 0, 0),
]  # fmt: skip


def operands(m, n, k, left=()):
    size = -(-k // 8)
    return cases.bytes8(m + 1, (*left, m, size), np.uint8), cases.bytes8(n + 2, (n, size), np.uint8)


def test_shapes(isa):
    """Bits past k are random here, and count nothing."""
    for m, n, k in SHAPES:
        a, b = operands(m, n, k)
        want = ref.binary_gemm(a, b, k)
        assert want.shape == (m, n)
        assert_same(qkernels.binary_gemm(a, b, k), want, (m, n, k))
        assert_same(qkernels.binary_gemm(a, b), ref.binary_gemm(a, b), (m, n, k))


def test_product_of_signs(isa):
    """By way of pack, against the product of the numbers themselves."""
    for k in (1, 8, 13, 77):
        a, b = (2 * cases.ints(seed, (6, k), 0, 1) - 1 for seed in (1, 2))
        bits = [qkernels.pack((x > 0).astype(np.uint8), 1) for x in (a, b)]
        assert_same(qkernels.binary_gemm(*bits, k=k), (a @ b.T).astype(np.int32), k)


def test_extremes(isa):
    for k in (64, 4001):
        a, b = operands(5, 35, k)
        rows = cases.extremes(a.shape, np.uint8)
        for name, x in rows.items():
            for other, y in cases.extremes(b.shape, np.uint8).items():
                assert_same(qkernels.binary_gemm(x, y, k), ref.binary_gemm(x, y, k), (name, other))
        assert (qkernels.binary_gemm(rows["high"], np.zeros_like(b), k) == -k).all()


def test_strides_and_batches(isa):
    a, b = operands(6, 18, 75)
    want = ref.binary_gemm(a, b, 75)
    for left, a_view in cases.strided(a).items():
        for right, b_view in cases.strided(b).items():
            assert_same(qkernels.binary_gemm(a_view, b_view, 75), want, (left, right))
    for batch in [(2,), (2, 3), (0,), (2, 0)]:
        a, b = operands(3, 5, 20, batch)
        got = qkernels.binary_gemm(a, b, 20)
        assert got.shape == (*batch, 3, 5)
        assert_same(got, ref.binary_gemm(a, b, 20), batch)


def test_threads(isa):
    for m, n, k in [(300, 700, 500), (1, 4096, 1024), (1501, 17, 211), (37, 1001, 20_001)]:
        a, b = operands(m, n, k)
        with qkernels.num_threads(1):
            alone = qkernels.binary_gemm(a, b, k)
        signs = [2.0 * qkernels.unpack(x, 1, k, signed=False).astype(np.float32) - 1 for x in (a, b)]
        assert (alone == signs[0] @ signs[1].T).all()  # sums of so few ones are exact in float32
        for number in (2, 3, 8):
            with qkernels.num_threads(number):
                assert_same(qkernels.binary_gemm(a, b, k), alone, number)


def test_out(isa):
    a, b = operands(5, 37, 100)
    want = ref.binary_gemm(a, b, 100)
    for name, out in cases.strided(np.zeros_like(want)).items():
        if out.flags.writeable:
            assert qkernels.binary_gemm(a, b, 100, out=out) is out
            assert (out == want).all(), name
    good = np.empty_like(want)
    raises(TypeError, "out", qkernels.binary_gemm, a, b, 100, out=good.astype(np.int64))
    raises(TypeError, "out", qkernels.binary_gemm, a, b, 100, out=good.tolist())
    for wrong in (good[:2], good.T, good[None]):
        raises(ValueError, "out", qkernels.binary_gemm, a, b, 100, out=wrong)
    memory = np.zeros(2000, np.uint8)
    inside = memory[700:765].reshape(a.shape)
    overlapping = memory[: want.nbytes].view(np.int32).reshape(want.shape)
    raises(ValueError, "out", qkernels.binary_gemm, inside, b, 100, out=overlapping)
    good.flags.writeable = False
    raises(ValueError, "out", qkernels.binary_gemm, a, b, 100, out=good)


@pytest.mark.any_isa
def test_bad_operands():
    a, b = operands(3, 5, 20)
    raises(TypeError, "a_bits", qkernels.binary_gemm, a.view(np.int8), b)
    raises(TypeError, "b_bits", qkernels.binary_gemm, a, b.astype(np.float32))
    raises(TypeError, "a_bits", qkernels.binary_gemm, a.tolist(), b)
    raises(ValueError, "a_bits", qkernels.binary_gemm, a[0], b)
    for wrong in (b[0], b[None], b[:, :2]):
        raises(ValueError, "b_bits", qkernels.binary_gemm, a, wrong)
    for k in (-1, 0, 16, 25, 2**31, 2**70):
        raises(ValueError, "k", qkernels.binary_gemm, a, b, k)
    for k in (20.0, "20", [20]):
        raises(TypeError, "k", qkernels.binary_gemm, a, b, k)
    tall, wide = (np.broadcast_to(np.uint8(1), (n, 0)) for n in (2**40, 2**30))
    raises(ValueError, "a_bits", qkernels.binary_gemm, tall, wide)
