"""Bad arguments of int8_gemm and pack_b: the right exception, which names the argument."""

import itertools

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from conftest import ISAS

import qkernels
from qkernels import _core

pytestmark = pytest.mark.filterwarnings("error")

M, N, K = 3, 5, 4
A, B = cases.bytes8(1, (M, K), np.uint8), cases.bytes8(2, (K, N), np.int8)
SCALES, ROWS = cases.scales(3, (N,)), cases.scales(4, (M,))
NOT_BYTES = [
    A.astype(np.float32), A.astype(np.int16), A.astype(np.int32), A > 0, A.astype(object),
    None, "a", [[1, 2, 3, 4]], 3, object(), A.astype(">i2"),
]  # fmt: skip
NOT_POSITIVE = [0.0, -0.0, -1.0, np.nan, np.inf, -np.inf, 1e60, 1e-60]


def gemm(*args, **options):
    return qkernels.int8_gemm(A, B, *args, **options)


@pytest.mark.parametrize("bad", NOT_BYTES, ids=lambda x: str(getattr(x, "dtype", type(x).__name__)))
def test_data_of_another_type(bad):
    raises(TypeError, "a_q", qkernels.int8_gemm, bad, B)
    raises(TypeError, "b_q", qkernels.int8_gemm, A, bad)
    raises(TypeError, "b_q", qkernels.pack_b, bad)


def test_shapes():
    for bad in (A[0], A[0, 0], A[:, :3], np.zeros((M, 0), np.uint8)):
        raises(ValueError, "a_q|b_q", qkernels.int8_gemm, bad, B)
        raises(ValueError, "a_q|b_q", qkernels.int8_gemm, bad, qkernels.pack_b(B))
    for bad in (B[:, 0], B[:3], B[0, 0], np.zeros((0, N), np.int8)):
        raises(ValueError, "a_q|b_q", qkernels.int8_gemm, A, bad)
    for left, right in [((2,), (3,)), ((2, 3), (2,)), ((0,), (2,))]:
        a, b = np.broadcast_to(A, left + A.shape), np.broadcast_to(B, right + B.shape)
        raises(ValueError, "a_q|b_q", qkernels.int8_gemm, a, b)
    for bad in (B[0], B[None], B[0, 0]):
        raises(ValueError, "b_q", qkernels.pack_b, bad)


def test_scales_must_be_finite_and_positive(isa):
    for bad in NOT_POSITIVE:
        raises(ValueError, "scales", gemm, bad)
        raises(ValueError, "scales", gemm, np.float64([1, 1, 1, 1, bad]))
        raises(ValueError, "row_scales", gemm, 1.0, row_scales=np.float64([1, bad, 1]))
        raises(ValueError, "out_scale", gemm, 1.0, out_scale=bad, out_dtype="int8")
        raises(ValueError, "out_scale", gemm, 1.0, out_scale=bad, out_dtype="int8", requant="fixed")
        raises(ValueError, "scales", gemm, bad, out_scale=1.0, out_dtype="uint8", requant="fixed")


@pytest.mark.parametrize("bad", ["1", 1j, True, [True] * 5, ["a"] * 5, {}, object()])
def test_scales_of_another_type(bad):
    raises(TypeError, "scales", gemm, bad)
    raises(TypeError, "row_scales", gemm, 1.0, row_scales=bad)
    raises(TypeError, "bias", gemm, 1.0, bias=bad)
    raises(TypeError, "out_scale", gemm, 1.0, out_scale=bad, out_dtype="int8")


def test_shapes_of_parameters():
    for shape in ((1,), (N - 1,), (N + 1,), (M,), (1, N), (N, 1), (M, N), (0,)):
        ones = np.ones(shape, np.float32)
        raises(ValueError, "scales", gemm, ones)
        raises(ValueError, "bias", gemm, 1.0, bias=ones)
        raises(ValueError, "bias", gemm, bias=ones.astype(np.int32))
        raises(ValueError, "b_zero_point", gemm, b_zero_point=ones.astype(np.int8))
        raises(ValueError, "b_zero_point", qkernels.pack_b, B, b_zero_point=ones.astype(np.int8))
    for shape in ((1,), (M - 1,), (N,), (1, M), (M, N), (0,)):
        ones = np.ones(shape, np.float32)
        raises(ValueError, "row_scales", gemm, 1.0, row_scales=ones)
        raises(ValueError, "a_zero_point", gemm, a_zero_point=ones.astype(np.uint8))
    raises((TypeError, ValueError), "out_scale", gemm, 1.0, out_scale=SCALES, out_dtype="int8")
    raises((TypeError, ValueError), "out_zero_point", gemm, 1.0, out_scale=1.0, out_dtype="int8",
           out_zero_point=[1])  # fmt: skip


def test_zero_points(isa):
    for bad in (-1, 256, 2**31, -(2**40), 2**70):
        raises(ValueError, "a_zero_point", gemm, a_zero_point=bad)
        raises(
            ValueError,
            "out_zero_point",
            gemm,
            1.0,
            out_dtype="uint8",
            out_scale=1.0,
            out_zero_point=bad,
        )
    for bad in (-129, 128, 2**31, -(2**40), 2**70):
        raises(ValueError, "b_zero_point", gemm, b_zero_point=bad)
        raises(ValueError, "b_zero_point", qkernels.pack_b, B, b_zero_point=bad)
        raises(
            ValueError,
            "out_zero_point",
            gemm,
            1.0,
            out_dtype="int8",
            out_scale=1.0,
            out_zero_point=bad,
        )
    raises(ValueError, "a_zero_point", gemm, a_zero_point=np.array([0, 256, 0]))
    raises(ValueError, "b_zero_point", gemm, b_zero_point=np.array([0, 0, 0, 0, 128]))
    for bad in (1.0, True, "0", None, np.float32(0), 1j):
        raises(TypeError, "a_zero_point", gemm, a_zero_point=bad)
        raises(TypeError, "b_zero_point", gemm, b_zero_point=bad)
        raises(TypeError, "b_zero_point", qkernels.pack_b, B, b_zero_point=bad)
        raises(
            TypeError,
            "out_zero_point",
            gemm,
            1.0,
            out_dtype="int8",
            out_scale=1.0,
            out_zero_point=bad,
        )
    # the packed matrix has its own
    packed = qkernels.pack_b(B, b_zero_point=3)
    raises(ValueError, "b_zero_point", qkernels.int8_gemm, A, packed, b_zero_point=3)


def test_bias(isa):
    for bad in (np.nan, np.inf, -np.inf):
        for output in ({}, {"out_dtype": "int8", "out_scale": 1.0}):
            raises(ValueError, "bias", gemm, 1.0, bias=np.float32([0, 0, 0, 0, bad]), **output)
    for kind in (np.int8, np.int64, np.uint32, bool, complex):
        raises(TypeError, "bias", gemm, 1.0, bias=np.ones(N, kind))


def test_activation():
    for bad in ("gelu", "", "ReLU", (1.0, 0.0), (0.0, np.nan), (np.nan, 1.0)):
        raises(ValueError, "activation", gemm, 1.0, activation=bad)
    for bad in (6.0, object(), ("a", "b"), (None, 1.0), True, (1.0,), (0, 1, 2)):
        raises((TypeError, ValueError), "activation", gemm, 1.0, activation=bad)


def test_combinations(isa):
    """Arguments that have no meaning together."""
    for name, value in [
        ("activation", "relu"), ("row_scales", ROWS), ("out_scale", 1.0), ("out_zero_point", 1),
        ("out_dtype", "int8"), ("out_dtype", "float32"), ("bias", np.ones(N, np.float32)),
    ]:  # fmt: skip
        raises(ValueError, f"{name}|scales", gemm, **{name: value})
    raises(ValueError, "out_dtype|scales", gemm, 1.0, out_dtype="int32")
    for dtype in ("int8", "uint8"):
        raises(ValueError, "out_scale", gemm, 1.0, out_dtype=dtype)
    for bad in ("int4", "int16", "float64", np.float16, 5, "x"):
        raises((TypeError, ValueError), "out_dtype", gemm, 1.0, out_dtype=bad, out_scale=1.0)
    for bad in ("int", "", None, 1):
        raises(ValueError, "requant", gemm, 1.0, out_dtype="int8", out_scale=1.0, requant=bad)


def test_scales_that_overflow_together(isa):
    big = np.float32(3e38)
    raises(ValueError, "scales", gemm, big, row_scales=np.float32([1, 1, 2]))
    raises(ValueError, "scales|out_scale", gemm, big, out_scale=0.5, out_dtype="int8")
    raises(ValueError, "scales|bias|out_scale", gemm, 1.0, out_scale=0.5, out_dtype="int8",
           bias=np.full(N, big))  # fmt: skip
    raises(ValueError, "scales|row_scales", gemm, 1.0, out_scale=1e-20, out_dtype="int8",
           row_scales=np.float32([1, 1, 1e20]))  # fmt: skip


def test_fixed_requantization_takes_less(isa):
    fixed = {"requant": "fixed", "out_dtype": "int8", "out_scale": 1.0}
    for more in ({"bias": np.ones(N, np.float32)}, {"row_scales": ROWS}):
        raises(NotImplementedError, "requant|bias|row_scales", gemm, 1.0, **fixed, **more)
    for scales in (2.0**30, np.float32([1, 1, 1, 1, 2**31]), 3e38):
        raises(ValueError, "scales", gemm, scales, **fixed)
    raises((ValueError, NotImplementedError), "requant|out_dtype", gemm, 1.0, requant="fixed")
    long = np.zeros((1, 200_000), np.uint8), np.zeros((200_000, 1), np.int8)
    raises(NotImplementedError, "requant", qkernels.int8_gemm, *long, 1.0, **fixed)
    edge = np.full(N, 2**31 - 1, np.int32)
    raises(NotImplementedError, "requant", gemm, 1.0, bias=edge, **fixed)


def test_out():
    for options, good in [
        ({}, np.empty((M, N), np.int32)),
        ({"scales": 1.0}, np.empty((M, N), np.float32)),
    ]:
        raises(TypeError, "out", gemm, out=good.astype(np.float64), **options)
        raises(TypeError, "out", gemm, out=good.astype(good.dtype.newbyteorder()), **options)
        raises(TypeError, "out", gemm, out=good.tolist(), **options)
        for wrong in (good[:2], good.T, good[None], good.ravel(), good[:, :1]):
            raises(ValueError, "out", gemm, out=wrong, **options)
        good.flags.writeable = False
        raises(ValueError, "out", gemm, out=good, **options)


def test_out_overlaps_an_input():
    memory = np.zeros(400, np.uint8)
    out = memory[:60].view(np.int32).reshape(M, N)
    inside = memory[48:60].reshape(M, K)
    raises(ValueError, "out", qkernels.int8_gemm, inside, B, out=out)
    raises(ValueError, "out", qkernels.int8_gemm, A, memory[40:60].reshape(K, N), out=out)
    y = np.ones((M, N), np.float32)
    raises(ValueError, "out", gemm, y[0], out=y)
    raises(ValueError, "out", gemm, 1.0, bias=y[1], out=y)
    raises(ValueError, "out", gemm, 1.0, row_scales=y[:, 2], out=y)
    z = np.zeros((M, N), np.int32)
    raises(ValueError, "out", gemm, a_zero_point=z[:, 2], out=z)
    raises(ValueError, "out", gemm, b_zero_point=z[1], out=z)
    apart = memory[60:72].reshape(M, K)
    assert qkernels.int8_gemm(apart, B, out=out) is out


def test_packed_in_another_layout(isa):
    own = qkernels.pack_b(B, b_zero_point=3)
    want = qkernels.int8_gemm(A, B, b_zero_point=3)
    for name, layout in _core.b_layouts().items():
        packed = own.repacked(layout)
        assert packed.layout == layout and (packed.unpack() == B).all() and (packed.zero_point == 3).all()
        if layout == own.layout:
            assert_same(qkernels.int8_gemm(A, packed), want, name)
        else:
            assert "ISA" in raises(ValueError, "b_q", qkernels.int8_gemm, A, packed)


def test_packed_under_another_isa(select_isa):
    """Kernels of one layout take what the others packed."""
    packed = {}
    for name in ISAS:
        select_isa(name)
        packed[name] = qkernels.pack_b(B)
    for name, other in itertools.product(ISAS, packed.values()):
        select_isa(name)
        if other.layout == _core.b_layout():
            assert_same(qkernels.int8_gemm(A, other), qkernels.int8_gemm(A, B), name)
        else:
            raises(ValueError, "b_q", qkernels.int8_gemm, A, other)


@pytest.mark.any_isa
@pytest.mark.parametrize("wrong", [{"nr": 0}, {"kr": 0}, {"n_unit": 0}, {"n_unit": 5}, {"bytes_signed": 2}])
def test_layouts_that_cannot_be(wrong):
    raises(ValueError, "layout", qkernels.pack_b(B).repacked, _core.b_layouts()["avx2"] | wrong)


def test_sizes_that_overflow():
    """Views of one byte that claim more than the address space."""
    one = np.int8(1)
    tall, wide = np.broadcast_to(one, (2**40, 1)), np.broadcast_to(one, (1, 2**40))
    raises(ValueError, "a_q|b_q", qkernels.int8_gemm, tall, wide)
    left, right = np.broadcast_to(one, (2**40, 1, 2, 1)), np.broadcast_to(one, (2**30, 1, 2))
    raises(ValueError, "a_q|b_q", qkernels.int8_gemm, left, right)
    raises((MemoryError, ValueError), None, qkernels.pack_b, np.broadcast_to(one, (2**30, 2**30)))
    raises(ValueError, "b_q", qkernels.pack_b, np.broadcast_to(one, (2**60, 4)))
    raises(
        (MemoryError, ValueError),
        None,
        qkernels.int8_gemm,
        tall.T,
        np.broadcast_to(one, (2**40, 2**20)),
    )
