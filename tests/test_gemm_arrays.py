"""int8_gemm and pack_b: batches, strides, `out`, foreign tensors, PackedB."""

import copy
import itertools
import pickle

import cases
import numpy as np
import pytest
from cases import assert_same, raises

import qkernels
from qkernels import ref
from qkernels.calibration import HistogramObserver, InputStatistics

LAYOUTS = ["fortran", "sliced", "backward", "unaligned"]
BATCHES = [
    ((2,), (2,)), ((2,), ()), ((), (3,)), ((2, 1), (3,)), ((1, 3), (2, 1)), ((4, 1, 2), (3, 1)),
    ((0,), (1,)), ((2,), (1,)), ((2, 0), ()),
]  # fmt: skip


def operands(m, n, k, left=(), right=()):
    return cases.bytes8(1, left + (m, k), np.uint8), cases.bytes8(2, right + (k, n), np.int8)


def test_batches_broadcast_as_in_matmul(isa):
    for (left, right), (m, n, k) in itertools.product(BATCHES, [(1, 5, 9), (5, 18, 33)]):
        a, b = operands(m, n, k, left, right)
        zeros = {"a_zero_point": cases.bytes8(3, (m,), np.uint8), "b_zero_point": -3}
        got = qkernels.int8_gemm(a, b, **zeros)
        assert_same(got, ref.int8_gemm(a, b, **zeros))
        assert got.shape == np.matmul(a, b).shape
        options = {"row_scales": cases.scales(4, (m,)), "bias": cases.floats(5, (n,)), **zeros}
        scales = cases.scales(6, (n,))
        want = ref.int8_gemm(a, b, scales, **options)
        assert_same(qkernels.int8_gemm(a, b, scales, **options), want)
        out = np.empty_like(want)
        assert qkernels.int8_gemm(a, b, scales, out=out, **options) is out
        assert_same(out, want)
        if not right:
            assert_same(qkernels.int8_gemm(a, qkernels.pack_b(b), a_zero_point=3),
                        ref.int8_gemm(a, b, a_zero_point=3))  # fmt: skip


def test_strides(isa):
    for m, n, k in [(1, 19, 35), (6, 18, 37)]:
        a, b = operands(m, n, k)
        want = ref.int8_gemm(a, b, a_zero_point=7)
        for (left, a_view), (right, b_view) in itertools.product(
            cases.strided(a).items(), cases.strided(b).items()
        ):
            assert_same(qkernels.int8_gemm(a_view, b_view, a_zero_point=7), want, (left, right))
            packed = qkernels.pack_b(b_view)
            assert_same(qkernels.int8_gemm(a_view, packed, a_zero_point=7), want, (left, right))


def test_broadcast_and_transposed_views(isa):
    a, b = operands(6, 18, 37)
    same_row, same_column = np.broadcast_to(a[:1], a.shape), np.broadcast_to(b[:, :1], b.shape)
    one = np.broadcast_to(np.int8(-128), b.shape)
    for left, right in [(same_row, same_column), (a, one), (same_row, b), (b.T, a.T)]:
        assert_same(qkernels.int8_gemm(left, right), ref.int8_gemm(left, right))
    # strided vectors: scales, zero points, bias, row_scales
    twice = {
        "row_scales": cases.scales(1, (12,))[::2], "bias": cases.floats(2, (36,))[::-2],
        "a_zero_point": cases.bytes8(3, (12,), np.uint8)[::2],
        "b_zero_point": cases.bytes8(4, (36,), np.int8)[::-2],
    }  # fmt: skip
    scales = cases.scales(5, (36,))[::2]
    assert_same(qkernels.int8_gemm(a, b, scales, **twice), ref.int8_gemm(a, b, scales, **twice))


@pytest.mark.parametrize("dtype", ["int32", "float32", "int8", "uint8"])
def test_out(isa, dtype):
    sizes = [(1, 19, 35), (7, 34, 20), (3, 5, 0), (0, 4, 3)]
    for layout, (m, n, k) in itertools.product(LAYOUTS, sizes):
        a, b = operands(m, n, k)
        if dtype == "int32":
            options = {"bias": cases.ints(3, (n,), -99, 99, np.int32)}
        else:
            options = {"scales": 0.01, "out_dtype": dtype, "bias": cases.floats(3, (n,))}
        if dtype.endswith("8"):
            options["out_scale"] = 0.5
        want = ref.int8_gemm(a, b, **options)
        out = cases.strided(np.zeros((m, n), dtype))[layout]
        base = out if out.base is None else out.base
        outside = int(np.count_nonzero(base)) - int(np.count_nonzero(out))
        assert qkernels.int8_gemm(a, b, out=out, **options) is out
        assert_same(out, want)
        if layout == "sliced":
            hidden = out.base.copy()
            hidden[1 : 2 * m + 1 : 2, 1 : 2 * n + 1 : 2] = 0
            assert outside == 0 and not hidden.any()  # nothing was written between the elements


def test_out_of_a_batch_may_be_strided(isa):
    a, b = operands(4, 17, 9, (2, 1), (3,))
    want = ref.int8_gemm(a, b)
    out = np.empty((3, 4, 2, 17), np.int32).transpose(2, 0, 1, 3)
    assert qkernels.int8_gemm(a, b, out=out) is out
    assert_same(out, want)


class Dlpack:
    """A tensor of another library: only the DLPack protocol."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


class ArrayLike:
    """An object that only knows how to become an array."""

    def __init__(self, x):
        self.x = x

    def __array__(self, dtype=None, copy=None):
        return self.x if dtype is None else self.x.astype(dtype)


@pytest.mark.parametrize("wrap", [Dlpack, ArrayLike])
def test_foreign_tensors(isa, wrap):
    a, b = operands(3, 17, 8)
    x, scale, bias = cases.floats(1, (3, 8)), cases.scales(2, (3,)), cases.floats(3, (17,))
    got = qkernels.int8_gemm(wrap(a), wrap(b), wrap(cases.scales(4, (17,))), bias=wrap(bias))
    assert_same(got, ref.int8_gemm(a, b, cases.scales(4, (17,)), bias=bias))
    assert_same(qkernels.pack_b(wrap(b)).unpack(), b)
    q = ref.quantize(x, scale, axis=0)
    assert_same(qkernels.quantize(wrap(x), wrap(scale), axis=0), q)
    assert_same(qkernels.dequantize(wrap(q), wrap(scale), axis=0), ref.dequantize(q, scale, axis=0))
    assert_same(qkernels.fake_quantize(wrap(x), 0.1), ref.fake_quantize(x, 0.1))
    assert_same(qkernels.choose_qparams(wrap(x)).scale, ref.choose_qparams(x).scale)
    assert_same(qkernels.dynamic_quantize(wrap(x))[0], ref.dynamic_quantize(x)[0])
    small = np.clip(q, -8, 7)
    assert_same(qkernels.pack(wrap(small), 4), ref.pack(small, 4))
    assert_same(qkernels.unpack(wrap(ref.pack(small, 4)), 4, 8), small)
    qw = qkernels.quantize_weight(wrap(x), "int8")
    assert_same(qkernels.linear(wrap(x), qw, wrap(scale)), ref.linear(x, ref.quantize_weight(x), scale))
    ready = qkernels.QuantizedWeight.from_int4(wrap((small + 8).view(np.uint8)), wrap(scale), wrap(np.uint8([8, 7, 9])))
    assert_same(ready.dequantize(), ref.dequantize(small, scale, np.int8([0, -1, 1]), axis=0))


class Subclass(np.ndarray):
    """As np.matrix: an array whose methods take other arguments."""

    def min(self, axis=None, out=None):
        raise AssertionError("called")

    max = min


@pytest.mark.any_isa
def test_subclasses():
    x = cases.floats(1, (6, 8))
    other = x.view(Subclass)
    for observer in (InputStatistics(8), HistogramObserver(axis=0)):
        seen, want = copy.copy(observer).observe(other), observer.observe(x)
        assert repr(seen.to_state()) == repr(want.to_state())
    for method in ("minmax", "percentile", "mse", "entropy"):
        got, want = (qkernels.choose_qparams(values, method=method) for values in (other, x))
        assert_same(got.scale, want.scale)
    assert_same(qkernels.quantize_weight(other, method="mse").dequantize(),
                qkernels.quantize_weight(x, method="mse").dequantize())


class OnAnotherDevice:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("not here")


@pytest.mark.any_isa
def test_tensors_that_give_no_array():
    assert "not here" in raises(TypeError, "x", qkernels.quantize, OnAnotherDevice(), 1.0)


def test_packed_b(isa):
    sizes = [(1, 1), (9, 17), (64, 16), (65, 33), (200, 70), (0, 5), (5, 0), (0, 0)]
    for (k, n), dtype in itertools.product(sizes, [np.int8, np.uint8]):
        packed_b(k, n, dtype)


def packed_b(k, n, dtype):
    b, zeros = cases.bytes8(1, (k, n), dtype), cases.bytes8(2, (n,), dtype)
    a = cases.bytes8(3, (4, k), np.int8)
    want = ref.int8_gemm(a, b, b_zero_point=zeros)
    stored = np.ascontiguousarray(b.T)
    for packed in (
        qkernels.pack_b(b, b_zero_point=zeros),
        qkernels.pack_b(stored, b_zero_point=zeros, transpose=True),
    ):
        again = pickle.loads(pickle.dumps(packed))
        for p in (packed, again):
            assert (p.shape, p.dtype, p.isa) == ((k, n), np.dtype(dtype), packed.isa)
            assert p.nbytes == packed.nbytes and p.nbytes >= k * n
            assert_same(p.unpack(), b)
            assert_same(qkernels.int8_gemm(a, p), want)
            assert_same(qkernels.int8_gemm(a[:1], p), want[:1])
        for view in cases.strided(stored).values():
            assert_same(qkernels.pack_b(view, b_zero_point=zeros, transpose=True).unpack(), b)


def test_packed_b_names_its_isa(isa):
    packed = qkernels.pack_b(np.ones((3, 4), np.int8))
    assert packed.isa in qkernels.cpu_info()["supported"]
    assert isinstance(packed, qkernels.PackedB)
    assert packed.isa == isa or packed.isa in qkernels.cpu_info()["kernels"].values()
