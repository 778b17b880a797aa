"""The oracle against truths that were reached by other means: examples, fractions, ints."""

import math
from fractions import Fraction

import cases
import numpy as np
import pytest

from qkernels import ref
from qkernels.ref import requant

pytestmark = pytest.mark.any_isa


def nearest32(value):
    """The float32 nearest to a Fraction (half to even), as a Fraction. Normal range only."""
    if value == 0:
        return value
    step = Fraction(2) ** (math.frexp(float(abs(value)))[1] - 24)
    return round(value / step) * step


def clamp(value, low, high):
    return min(max(value, low), high)


def to_int32(value):
    return (value + 2**31) % 2**32 - 2**31


def test_worked_example_zero_to_six():
    params = ref.choose_qparams(np.float32([0, 6]), "uint8", symmetric=False)
    q = ref.quantize(np.float32([3.0]), params.scale, params.zero_point, dtype="uint8")
    back = ref.dequantize(q, params.scale, params.zero_point)
    assert (round(float(params.scale), 4), int(params.zero_point)) == (0.0235, 0)
    assert (q[0], round(float(back[0]), 2)) == (128, 3.01)


# The examples of ONNX's operator pages.
ONNX_DYNAMIC = [
    ([0, 2, -3, -2.5, 1.34, 0.5], 0.0196078438, 153, [153, 255, 0, 26, 221, 179]),
    ([-1.0, -2.1, -1.3, -2.5, -3.34, -4.0], 0.0156862754, 255, [191, 121, 172, 96, 42, 0]),
    (
        [1, 2.1, 1.3, 2.5, 3.34, 4.0, 1.5, 2.6, 3.9, 4.0, 3.0, 2.345], 0.0156862754, 0,
        [64, 134, 83, 159, 213, 255, 96, 166, 249, 255, 191, 149],
    ),
]  # fmt: skip


@pytest.mark.parametrize("x, scale, zero_point, q", ONNX_DYNAMIC)
def test_onnx_dynamic_quantize_linear(x, scale, zero_point, q):
    got_q, got_scale, got_zero = ref.dynamic_quantize(np.float32(x))
    assert got_scale == np.float32(scale) and got_zero == zero_point
    cases.assert_same(got_q, np.uint8(q))


def test_onnx_quantize_linear():
    x = np.float32([0, 2, 3, 1000, -254, -1000])
    got = ref.quantize(x, 2.0, 128, dtype="uint8")
    cases.assert_same(got, np.uint8([128, 129, 130, 255, 1, 0]))
    per_axis = ref.quantize(np.float32([[2, 3], [9, 30]]), np.float32([1, 2]), axis=0)
    cases.assert_same(per_axis, np.int8([[2, 3], [4, 15]]))


def test_onnx_matmul_integer():
    a = np.uint8([[11, 7, 3], [10, 6, 2], [9, 5, 1], [8, 4, 0]])
    b = np.uint8([[1, 4], [2, 5], [3, 6]])
    want = np.int32([[-38, -83], [-44, -98], [-50, -113], [-56, -128]])
    cases.assert_same(ref.int8_gemm(a, b, a_zero_point=12), want)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int4", "uint4", "int2", "uint2"])
def test_quantize_against_fractions(dtype):
    bits, signed = int(dtype[-1]), dtype[0] == "i"
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    x = np.concatenate([cases.floats(1, (300,), 4.0), np.arange(-8, 8) + np.float32(0.5)])
    x = x.astype(np.float32)
    for scale in np.float32([0.1, 1.0, 0.0235, 3.0]):
        for zero in (low, low + 1, high):
            want = [
                clamp(
                    round(nearest32(Fraction(float(v)) / Fraction(float(scale)))) + zero, low, high
                )
                for v in x
            ]
            got = ref.quantize(x, scale, zero, dtype=dtype)
            assert got.tolist() == want
            back = [nearest32((v - zero) * Fraction(float(scale))) for v in want]
            assert ref.dequantize(got, scale, zero).astype(float).tolist() == back


def test_quantize_infinity_and_nan():
    x = np.float32([np.inf, -np.inf, 3e38, -3e38, 1e-45])
    assert ref.quantize(x, 1e-3, 5).tolist() == [127, -128, 127, -128, 5]
    with pytest.raises(ValueError, match="x: has NaN"):
        ref.quantize(np.float32([np.nan]), 1.0)


def test_choose_qparams_by_hand():
    x = np.float32([[1, -2, 0.5], [0, 0, 0], [3, 1, 2]])
    got = ref.choose_qparams(x, axis=0)
    cases.assert_same(got.scale, np.float32([2, 127, 3]) / np.float32([127, 127, 127]))
    cases.assert_same(got.zero_point, np.int8([0, 0, 0]))
    assert (got.dtype, got.axis, got.group_size) == ("int8", 0, None)
    got = ref.choose_qparams(x, "uint4", axis=1, symmetric=False)
    cases.assert_same(got.scale, np.float32([3, 3, 2]) / np.float32(15))
    cases.assert_same(got.zero_point, np.uint8([0, 10, 0]))
    got = ref.choose_qparams(x, "int4", group_size=2)
    want = np.float32([[2, 0.5], [7, 7], [3, 2]]) / np.float32(7)
    cases.assert_same(got.scale, want)
    assert ref.choose_qparams(x, "uint8").zero_point == 128
    assert ref.choose_qparams(x, np.int8, full_range=True).scale == np.float32(3) / np.float32(
        127.5
    )
    assert ref.choose_qparams(np.float32([]), "int8", symmetric=False).zero_point == -128
    assert ref.choose_qparams(np.float32([1e-44])).scale == np.float32(2.0**-126)
    huge = ref.choose_qparams(np.float32([-3e38, 3e38]), "uint8", symmetric=False)
    assert np.isfinite(huge.scale) and huge.zero_point in (127, 128)


@pytest.mark.parametrize("order", ["low_first", "high_first"])
@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 9, 17])
def test_pack_against_big_integers(n, bits, order):
    values = cases.ints(n, (n,), 0, 2**bits - 1, np.uint8)
    size = -(-n * bits // 8)
    padded = values.tolist() + [0] * (size * 8 // bits - n)
    if order == "high_first":
        number = sum(v << i * bits for i, v in enumerate(reversed(padded)))
        want = number.to_bytes(size, "big")
    else:
        number = sum(v << i * bits for i, v in enumerate(padded))
        want = number.to_bytes(size, "little")
    packed = ref.pack(values, bits, order=order)
    assert packed.dtype == np.uint8 and packed.tobytes() == want
    cases.assert_same(ref.unpack(packed, bits, n, signed=False, order=order), values)
    signed = (values.astype(np.int8) << (8 - bits)) >> (8 - bits)
    cases.assert_same(ref.unpack(packed, bits, n, order=order), signed)
    cases.assert_same(ref.pack(signed, bits, order=order), packed)


@pytest.mark.parametrize("types", cases.SIGNS, ids=lambda t: "".join(d.__name__[0] for d in t))
def test_gemm_against_python_integers(types):
    m, n, k = 3, 4, 5
    a, b = cases.bytes8(1, (m, k), types[0]), cases.bytes8(2, (k, n), types[1])
    a_zero, b_zero = cases.bytes8(3, (m,), types[0]), cases.bytes8(4, (n,), types[1])
    bias = cases.ints(5, (n,), -(2**31), 2**31 - 1, np.int32)
    scale, rows = cases.scales(6, (n,)), cases.scales(7, (m,), 3.0)
    shift = cases.floats(8, (n,), 9.0)
    acc = [
        [sum((int(a[i, p]) - int(a_zero[i])) * (int(b[p, j]) - int(b_zero[j])) for p in range(k))
         for j in range(n)] for i in range(m)
    ]  # fmt: skip
    zeros = {"a_zero_point": a_zero, "b_zero_point": b_zero}
    want = [[to_int32(v + int(c)) for v, c in zip(line, bias)] for line in acc]
    cases.assert_same(ref.int8_gemm(a, b, bias=bias, **zeros), np.int32(want))

    def real(i, j):
        both = nearest32(Fraction(float(scale[j])) * Fraction(float(rows[i])))
        return nearest32(nearest32(acc[i][j] * both) + Fraction(float(shift[j])))

    want = [[float(real(i, j)) for j in range(n)] for i in range(m)]
    got = ref.int8_gemm(a, b, scale, row_scales=rows, bias=shift, **zeros)
    cases.assert_same(got, np.float32(want))
    got = ref.int8_gemm(a, b, scale, row_scales=rows, bias=shift, activation=(-5, 4.5), **zeros)
    cases.assert_same(got, np.float32([[clamp(v, -5, 4.5) for v in line] for line in want]))


@pytest.mark.parametrize("out_zero", [-128, -3, 127])
def test_float_requantization_against_fractions(out_zero):
    acc = cases.ints(1, (200,), -40000, 40000).tolist() + [2**31 - 1, -(2**31), 2**24 + 1, 0]
    scale, out_scale = np.float32(0.0123), np.float32(3.7)
    mult = nearest32(Fraction(float(scale)) / Fraction(float(out_scale)))
    # relu6: clamp to the integers that 0 and 6 become
    low = clamp(out_zero, -128, 127)
    high = clamp(round(nearest32(6 / Fraction(float(out_scale)))) + out_zero, -128, 127)
    got = ref.int8_gemm(
        np.zeros((1, 0), np.int8), np.zeros((0, len(acc)), np.int8), scale, bias=np.int32(acc),
        out_dtype="int8", out_scale=out_scale, out_zero_point=out_zero, activation="relu6",
    )  # fmt: skip
    want = [
        clamp(round(nearest32(nearest32(Fraction(v)) * mult)) + out_zero, low, high) for v in acc
    ]
    assert got[0].tolist() == want


def gemmlowp(acc, real, zero_point, low, high):
    """TFLite's MultiplyByQuantizedMultiplier in Python integers, as its C++ is written."""
    mantissa, exponent = math.frexp(real)
    q31 = int(Fraction(mantissa) * 2**31 + Fraction(1, 2))
    if q31 == 2**31:
        q31, exponent = q31 // 2, exponent + 1
    if exponent < -31:
        q31 = exponent = 0
    x = clamp(acc << max(exponent, 0), -(2**31), 2**31 - 1)
    product = x * q31
    nudge = 1 << 30 if product >= 0 else 1 - (1 << 30)
    h = abs(product + nudge) >> 31
    h = h if product + nudge >= 0 else -h
    right = max(-exponent, 0)
    mask = (1 << right) - 1
    r = (h >> right) + int((h & mask) > (mask >> 1) + (h < 0))
    return clamp(r + zero_point, low, high)


REALS = [1.0, 0.5, 0.25, 1 - 2.0**-24, 2.0**-31, 2.0**-32, 1e-12, 0.75, 1.5, 3.0, 2.0**29, 1.9e-9]


@pytest.mark.parametrize("real", REALS + cases.scales(3, (8,), 0.01).astype(float).tolist())
def test_fixed_requantization_against_python_integers(real):
    acc = [2**31 - 1, -(2**31) + 1, -(2**31), 2**30, -(2**30), 0, 1, -1, 2, -2, 3, -3]
    acc += cases.ints(1, (200,), -(2**31), 2**31 - 1).tolist()
    acc += cases.ints(2, (200,), -300, 300).tolist()
    got = requant.requantize_fixed(np.array(acc), np.float64(real), (-128, 127), 3, "int8")
    assert got.tolist() == [gemmlowp(v, real, 3, -128, 127) for v in acc]


def test_fixed_requantization_limits():
    q31, exponent = requant.quantize_multiplier(np.array([0.5, 1.0, 2.0**-32, 2.0**-33, 2.0**29.5]))
    assert q31.tolist() == [2**30, 2**30, 2**30, 0, round(2**30.5)]
    assert exponent.tolist() == [0, 1, -31, 0, 30]
    with pytest.raises(ValueError, match="^scales"):
        requant.quantize_multiplier(2.0**30)
    # a mantissa that rounds up to 2**31 becomes 2**30 with the next exponent
    q31, exponent = requant.quantize_multiplier(1 - 2.0**-40)
    assert (q31, exponent) == (2**30, 1)
