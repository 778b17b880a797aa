"""Bad arguments of the elementwise operations: the right exception, which names the argument.

`test_bad_gemm_input.py` does the same for int8_gemm and pack_b, `test_weights.py` for weights.
"""

import itertools

import cases
import numpy as np
import pytest
from cases import raises

import qkernels
import qkernels.ref

pytestmark = pytest.mark.filterwarnings("error")

X = cases.floats(1, (3, 4))
Q = cases.ints(2, (3, 4), -8, 7, np.int8)
SWAPPED = X.astype(X.dtype.newbyteorder())
TAKES_FLOATS = {
    "quantize": lambda x: qkernels.quantize(x, 0.1),
    "fake_quantize": lambda x: qkernels.fake_quantize(x, 0.1),
    "choose_qparams": qkernels.choose_qparams,
    "dynamic_quantize": qkernels.dynamic_quantize,
}
# functions of (scale, zero_point, and the layout and type of both)
TAKES_SCALES = {
    "quantize": lambda *a, **o: qkernels.quantize(X, *a, **o),
    "fake_quantize": lambda *a, **o: qkernels.fake_quantize(X, *a, **o),
    "dequantize": lambda *a, **o: qkernels.dequantize(
        Q.view(np.uint8) & 7 if o.get("dtype", "").startswith("u") else Q, *a, **o
    ),
}
floats_only = pytest.mark.parametrize("call", TAKES_FLOATS.values(), ids=TAKES_FLOATS)
with_scales = pytest.mark.parametrize("call", TAKES_SCALES.values(), ids=TAKES_SCALES)


@floats_only
@pytest.mark.parametrize(
    "x",
    [X.astype(np.float64), X.astype(np.float16), Q, X > 0, X.astype(complex), SWAPPED, None, "x",
     X.astype(object), np.array(["1"]), np.float64(1), {}, object()],
    ids=lambda x: x.dtype.str if hasattr(x, "dtype") else type(x).__name__,
)  # fmt: skip
def test_float_data_of_another_type(call, x):
    raises(TypeError, "x", call, x)


@floats_only
def test_nan_anywhere(isa, call):
    sizes = (1, 15, 16, 17, 63, 64, 65, 200)
    for n, where in itertools.product(sizes, (0.0, 0.5, 1.0)):
        place = int(where * (n - 1))
        x = cases.floats(1, (2, n))
        x[1, place] = np.nan
        raises(ValueError, "x", call, x)
        raises(ValueError, "x", call, np.asfortranarray(x))
        x[1, place] = -np.nan
        raises(ValueError, "x", call, x)


def test_nan_and_infinity_in_every_layout(isa):
    for where in ({}, {"axis": 0}, {"axis": 1}, {"group_size": 16}):
        for bad, place in itertools.product((np.nan, np.inf, -np.inf), ((0, 0), (4, 36), (2, 17))):
            x = cases.floats(1, (5, 37))
            x[place] = bad
            raises(ValueError, "x", qkernels.choose_qparams, x, **where)
            if "group_size" not in where:
                raises(ValueError, "x", qkernels.dynamic_quantize, x, **where)
            if np.isnan(bad):
                scale = qkernels.choose_qparams(np.ones_like(x), **where).scale
                raises(ValueError, "x", qkernels.quantize, x, scale, **where)
                raises(ValueError, "x", qkernels.fake_quantize, x, scale, **where)


@with_scales
def test_scale_must_be_finite_and_positive(isa, call):
    for bad in (0.0, -0.0, -1.0, np.nan, np.inf, -np.inf, 1e60, 1e-60, -1e-60):
        raises(ValueError, "scale", call, bad)
        raises(ValueError, "scale", call, np.float64([1, bad, 1]), axis=0)
        raises(ValueError, "scale", call, np.float64([1, 1, 1, bad]), axis=1)
        raises(ValueError, "scale", call, np.float64([[1, 1], [1, bad], [1, 1]]), group_size=2)


@with_scales
@pytest.mark.parametrize(
    "bad", ["1", None, 1j, True, [True, False, True], ["a"], np.ones(3, int), {}]
)
def test_scale_of_another_type(call, bad):
    raises(TypeError, "scale", call, bad, axis=0)


@with_scales
@pytest.mark.parametrize(
    "shape, where",
    [(shape, {}) for shape in [(1,), (3,), (3, 4)]]
    + [(shape, {"axis": 0}) for shape in [(1,), (4,), (3, 1), (0,)]]
    + [(shape, {"axis": 1}) for shape in [(1,), (3,), (1, 4)]]
    + [(shape, {"group_size": 2}) for shape in [(3,), (3, 1), (3, 4), (6,), (3, 2, 1)]],
)
def test_shape_of_scale_and_zero_point(call, shape, where):
    raises(ValueError, "scale", call, np.ones(shape, np.float32), **where)
    raises(ValueError, "zero_point", call, 1.0, np.zeros(shape, np.int8), **where)


@with_scales
def test_zero_point_out_of_range(isa, call):
    for dtype, (low, high) in qkernels.ref.affine.RANGES.items():
        for bad in (low - 1, high + 1, 1000, -1000, 2**31, -(2**31) - 1, 2**63, 2**70, -(2**70)):
            if call is not TAKES_SCALES["dequantize"] or dtype[-1] in "84":
                raises(ValueError, "zero_point", call, 1.0, bad, dtype=dtype)
        if call is not TAKES_SCALES["dequantize"]:
            bad = np.array([low, high + 1, low])
            raises(ValueError, "zero_point", call, 1.0, bad, dtype=dtype, axis=0)


@with_scales
@pytest.mark.parametrize("bad", [1.0, True, "0", None, np.float32(1), [0.0, 1, 2], [True] * 3, 1j])
def test_zero_point_of_another_type(call, bad):
    raises(TypeError, "zero_point", call, 1.0, bad, axis=0)


@pytest.mark.parametrize(
    "dtype", ["int3", "int16", "", "float32", np.int16, np.float32, None, 8, object()]
)
def test_unknown_dtype(dtype):
    for call in (
        lambda: qkernels.quantize(X, 1.0, dtype=dtype),
        lambda: qkernels.fake_quantize(X, 1.0, dtype=dtype),
        lambda: qkernels.choose_qparams(X, dtype),
        lambda: qkernels.dynamic_quantize(X, dtype=dtype),
    ):
        raises((TypeError, ValueError), "dtype", call)
    if dtype is not None:
        raises((TypeError, ValueError), "dtype", qkernels.dequantize, Q, 1.0, dtype=dtype)


def test_axis_and_group_size():
    calls = [qkernels.choose_qparams, lambda x, **o: qkernels.quantize(x, 1.0, **o)]
    calls += [lambda x, **o: qkernels.dequantize(Q if x.ndim else Q[0, 0], 1.0, **o)]
    for call in calls:
        for bad in (2, -3, 2**40, 2**70):
            raises(ValueError, "axis", call, X, axis=bad)
        for bad in (0, -1, -(2**70)):
            raises(ValueError, "group_size", call, X, group_size=bad)
        for bad in (1.0, "0", [0], True):
            raises(TypeError, "axis", call, X, axis=bad)
            raises(TypeError, "group_size", call, X, group_size=bad)
        raises(ValueError, "axis|group_size", call, X, axis=0, group_size=2)
        raises(ValueError, "axis", call, X[0, 0], axis=0)
        raises(ValueError, "group_size", call, X[0, 0], group_size=2)
    raises(ValueError, "axis", qkernels.dynamic_quantize, X, axis=2)
    raises(TypeError, "axis", qkernels.dynamic_quantize, X, axis=0.0)


def test_method():
    """`test_ranges.py` has more."""
    for bad in ("max", "", None, 3):
        raises(ValueError, "method", qkernels.choose_qparams, X, method=bad)
    raises(ValueError, "percentile", qkernels.choose_qparams, X, percentile=99.0)
    raises(ValueError, "full_range", qkernels.choose_qparams, X, symmetric=False, full_range=True)


def test_dequantize_data():
    for bad in (X, Q.astype(np.int16), Q.astype(np.int32), Q > 0, None, "q", [1, 2], object()):
        raises(TypeError, "q", qkernels.dequantize, bad, 1.0)
    raises((TypeError, ValueError), "q|dtype", qkernels.dequantize, Q, 1.0, dtype="uint8")
    raises(
        (TypeError, ValueError), "q|dtype", qkernels.dequantize, Q.view(np.uint8), 1.0, dtype="int4"
    )


def test_out():
    q, y = np.empty(X.shape, np.int8), np.empty(X.shape, np.float32)
    for call, good, other in [
        (lambda out: qkernels.quantize(X, 1.0, out=out), q, q.view(np.uint8)),
        (lambda out: qkernels.dequantize(Q, 1.0, out=out), y, y.astype(np.float64)),
    ]:
        raises(TypeError, "out", call, other)
        raises(TypeError, "out", call, good.tolist())
        raises(TypeError, "out", call, memoryview(good))
        raises(TypeError, "out", call, 3)
        for wrong in (good[:2], good[None], good.T, good[:, :1], good.ravel()):
            raises(ValueError, "out", call, wrong)
        frozen = good.copy()
        frozen.flags.writeable = False
        raises(ValueError, "out", call, frozen)
    raises(TypeError, "out", qkernels.dequantize, Q, 1.0, out=SWAPPED.copy())


def test_out_overlaps_the_input():
    x = cases.floats(1, (16, 16))
    raises(ValueError, "out", qkernels.quantize, x, 1.0, out=x.view(np.int8)[:, :16])
    memory = np.zeros(200, np.uint8)
    y, q = memory[:80].view(np.float32).reshape(4, 5), memory.view(np.int8)
    for shared in (q[:20], q[60:80], q[79:99], q[0:80:4], q[79::-1][:20]):
        raises(ValueError, "out", qkernels.dequantize, shared.reshape(4, 5), 1.0, out=y)
        raises(ValueError, "out", qkernels.quantize, y, 1.0, out=shared.reshape(4, 5))
    y[...] = 1
    apart = q[80:100].reshape(4, 5)
    assert (qkernels.quantize(y, 1.0, out=apart) == 1).all() and (y == 1).all()


def test_pack():
    for bad in (X, Q.astype(np.int32), Q > 0, None, "q", object(), [1, 2]):
        raises(TypeError, "q", qkernels.pack, bad, 4)
    for bad in (0, 3, 5, 8, -1, 2**70):
        raises(ValueError, "bits", qkernels.pack, Q, bad)
        raises(ValueError, "bits", qkernels.unpack, Q.view(np.uint8), bad, 4)
    for bad in (4.0, "4", None, [4], np.array([4, 4])):
        raises((TypeError, ValueError), "bits", qkernels.pack, Q, bad)
        raises((TypeError, ValueError), "bits", qkernels.unpack, Q.view(np.uint8), bad, 8)
    for bad in ("low", "", None, 1):
        raises(ValueError, "order", qkernels.pack, Q, 4, order=bad)
        raises(ValueError, "order", qkernels.unpack, Q.view(np.uint8), 4, 8, order=bad)
    raises(ValueError, "q", qkernels.pack, Q[0, 0, None].reshape(()), 4)
    raises(ValueError, "q", qkernels.pack, np.uint8([16]), 4)
    raises(ValueError, "q", qkernels.pack, np.int8([8]), 4)


def test_unpack():
    p = np.zeros((3, 4), np.uint8)
    for bad in (p.view(np.int8), X, p.astype(np.uint16), None, object(), [1]):
        raises(TypeError, "p", qkernels.unpack, bad, 4, 8)
    for bad in (6, 9, 0, -1, -8, 2**61, 2**70):
        raises(ValueError, "p|length", qkernels.unpack, p, 4, bad)
    for bad in (8.0, "8", None, [8], True):
        raises(TypeError, "length", qkernels.unpack, p, 4, bad)
    raises(ValueError, "p", qkernels.unpack, p[0, 0, None].reshape(()), 4, 1)


def test_sizes_beyond_memory():
    """Views of a few bytes that claim the whole address space."""
    huge = (2**30, 2**29)
    x, q = np.broadcast_to(np.float32(1), huge), np.broadcast_to(np.int8(1), (2**31, 2**31))
    p = np.broadcast_to(np.uint8(1), (2**61, 2))
    for call in (
        lambda: qkernels.quantize(x, 1.0),
        lambda: qkernels.fake_quantize(x, 1.0),
        lambda: qkernels.dynamic_quantize(x, axis=0),
        lambda: qkernels.dequantize(q, 1.0),
        lambda: qkernels.pack(q, 4),
        lambda: qkernels.unpack(p, 1, 16),
    ):
        raises((MemoryError, ValueError), None, call)
    raises(ValueError, "p", qkernels.unpack, p, 1, 16)
    raises(ValueError, "q", qkernels.dequantize, q, 1.0)
