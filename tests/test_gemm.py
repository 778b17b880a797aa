"""int8_gemm with int32 and float32 output, against the oracle."""

import cases
import numpy as np
import pytest
from cases import assert_same

import qkernels
from qkernels import ref

SHAPES = [
    (1, 1, 1), (1, 2, 3), (2, 1, 5), (1, 16, 64), (1, 17, 65), (1, 100, 7), (3, 15, 4), (4, 16, 8),
    (5, 17, 9), (6, 31, 15), (7, 32, 16), (8, 33, 17), (9, 47, 31), (12, 48, 32), (13, 49, 33),
    (15, 63, 63), (16, 64, 64), (17, 65, 65), (2, 129, 127), (33, 8, 130), (40, 3, 2), (65, 1, 66),
]  # fmt: skip
EMPTY = [(0, 5, 3), (5, 0, 3), (5, 3, 0), (0, 0, 0), (1, 17, 0), (0, 5, 0), (1, 0, 4)]
BY_TYPES = pytest.mark.parametrize(
    "types", cases.SIGNS, ids=lambda t: " x ".join(d.__name__ for d in t)
)


def operands(shape, types, seed=1):
    m, n, k = shape
    return cases.bytes8(seed, (m, k), types[0]), cases.bytes8(seed + 1, (k, n), types[1])


def zero_points(shape, types, seed=10):
    m, n, _ = shape
    return {
        "a_zero_point": cases.bytes8(seed, (m,), types[0]),
        "b_zero_point": cases.bytes8(seed + 1, (n,), types[1]),
    }


def check(a, b, *args, **options):
    """int8_gemm equals the oracle, with b as it is and with b packed."""
    want = cases.oracle(ref.int8_gemm, a, b, *args, **options)
    got = qkernels.int8_gemm(a, b, *args, **options)
    assert_same(got, want, (a.shape, b.shape, options))
    assert got.flags.c_contiguous
    if b.ndim == 2:
        packed = qkernels.pack_b(b, b_zero_point=options.pop("b_zero_point", 0))
        assert_same(
            qkernels.int8_gemm(a, packed, *args, **options), want, ("packed", a.shape, b.shape)
        )
    return got


@BY_TYPES
def test_shapes(isa, types):
    for shape in SHAPES + EMPTY:
        a, b = operands(shape, types)
        check(a, b)
        check(a, b, **zero_points(shape, types))


@BY_TYPES
def test_scalar_zero_points(isa, types):
    a, b = operands((5, 18, 35), types)
    for a_zero in cases.LIMITS[types[0]] + (0, 3, types[0](5)):
        for b_zero in cases.LIMITS[types[1]] + (0, 3, types[1](5)):
            check(a, b, a_zero_point=a_zero, b_zero_point=b_zero)


@BY_TYPES
def test_extreme_patterns(isa, types):
    """u8 255 against s8 -128 and 127 in pairs is where 16-bit sums would saturate."""
    zeros = {"a_zero_point": cases.LIMITS[types[0]][1], "b_zero_point": cases.LIMITS[types[1]][0]}
    for k in (2, 31, 64, 515):
        for a in cases.extremes((3, k), types[0]).values():
            for b_rows in cases.extremes((18, k), types[1]).values():
                b = np.ascontiguousarray(b_rows.T)
                check(a, b)
                check(a, b, **zeros)


@BY_TYPES
@pytest.mark.parametrize("k", [33025, 33026, 131_075])
def test_k_beyond_int32(isa, types, k):
    """Around 2**31 / 255**2 and beyond it: int32 wraps as NumPy's, a scaled result is exact."""
    a = np.stack([cases.extremes((k,), types[0])[p] for p in ("high", "low")])
    b = np.stack(
        [cases.extremes((k,), types[1])[p] for p in ("high", "low", "alternating")], axis=1
    )
    zeros = {"a_zero_point": cases.LIMITS[types[0]][0], "b_zero_point": cases.LIMITS[types[1]][0]}
    got = check(a, b, **zeros)
    want = (k * 255 * 255 + 2**31) % 2**32 - 2**31  # all high against all high
    assert got[0, 0] == want
    check(a[:1], b, 1e-3, **zeros)
    y = check(a, b, np.float32([1.0, 2.0, 0.5]), bias=np.float32([0.5, -1, 1]), **zeros)
    assert y[0, 0] == np.float32(np.float32(k * 255 * 255) + np.float32(0.5))


def test_long_k_with_zero_points_per_row_and_column(isa):
    shape = (2, 3, 200_001)
    a, b = operands(shape, (np.uint8, np.int8))
    zeros = {"a_zero_point": np.uint8([0, 255]), "b_zero_point": np.int8([-128, 127, 5])}
    check(a, b, **zeros)
    check(
        a,
        b,
        0.01,
        row_scales=np.float32([0.3, 3]),
        bias=np.int32([2**31 - 1, -(2**31), 0]),
        **zeros,
    )


@pytest.mark.parametrize("shape", [(1, 35, 40), (14, 66, 65), (4, 5, 0)], ids=str)
def test_float_output(isa, shape):
    m, n, _ = shape
    types = (np.uint8, np.int8)
    a, b = operands(shape, types)
    zeros = zero_points(shape, types)
    for scales in (0.01, np.float32(3e-4), cases.scales(3, (n,))):
        for rows in (None, cases.scales(4, (m,), 5.0)):
            for bias in (
                None,
                cases.floats(5, (n,), 30.0),
                cases.ints(6, (n,), -9999, 9999, np.int32),
            ):
                check(a, b, scales, row_scales=rows, bias=bias, activation="relu", **zeros)
        check(a, b, scales, out_dtype=np.float32)


def test_activation_of_float_output(isa):
    a, b = operands((5, 37, 24), (np.int8, np.int8))
    bias, scales = cases.floats(5, (37,), 4.0), cases.scales(1, (37,), 3e-4)
    names = ["relu", "relu6", (-1.5, 2.5), (-np.inf, 0), (0, np.inf), (1.0, 1.0), (-1e-3, 1e38)]
    for activation in names:
        y = check(a, b, scales, bias=bias, activation=activation)
        low, high = {"relu": (0, np.inf), "relu6": (0, 6)}.get(activation, activation)
        assert y.min() >= np.float32(low) and y.max() <= np.float32(high)


def test_float_output_has_no_fused_multiply_add(isa):
    """The bias cancels the rounded product: a fused multiply-add would leave the rounding error."""
    a, b = np.full((3, 320), 127, np.int8), cases.bytes8(3, (320, 64), np.int8)
    scales = cases.scales(2, (64,))
    bias = -(ref.int8_gemm(a, b).astype(np.float32)[0] * scales)
    assert (check(a, b, scales, bias=bias) == 0).all()


def test_negative_zero_and_underflow(isa):
    a, b = np.int8([[-1], [1], [0]]), np.ones((1, 20), np.int8)
    for activation in (None, "relu", (-1.0, 0.0)):
        check(a, b, np.float32(1e-45), row_scales=np.float32([1e-3] * 3), activation=activation)
    check(a, b, 1e-38, row_scales=np.float32([1e-3, 1.0, 1.0]))
    check(np.int8([[127]]), np.full((1, 20), 127, np.int8), np.float32(3e38))  # infinity


@BY_TYPES
def test_int32_bias_wraps(isa, types):
    a, b = operands((3, 21, 40), types)
    bias = np.int32([2**31 - 1, -(2**31), 0] * 7)
    check(a, b, bias=bias)
    check(a, b, 1e-6, bias=bias)


def test_random_calls(isa):
    """Everything at once, at random."""
    for seed in range(30):
        pick = cases.ints(seed, (12,), 0, 2**20).tolist()
        types = cases.SIGNS[pick[0] % 4]
        shape = (1 + pick[1] % 20, 1 + pick[2] % 70, pick[3] % 140)
        m, n, _ = shape
        a, b = operands(shape, types, seed)
        options = zero_points(shape, types, seed) if pick[4] % 2 else {}
        options["row_scales"] = cases.scales(seed, (m,), 2.0) if pick[5] % 2 else None
        biases = [
            None,
            cases.floats(seed, (n,), 50.0),
            cases.ints(seed, (n,), -9999, 9999, np.int32),
        ]
        options["bias"] = biases[pick[6] % 3]
        options["activation"] = [None, "relu", "relu6", (-3, 7.5)][pick[7] % 4]
        options["out_dtype"] = [None, "float32", "int8", "uint8"][pick[8] % 4]
        if options["out_dtype"] in ("int8", "uint8"):
            options["out_scale"] = float(cases.scales(seed, (), 1.0))
            options["out_zero_point"] = pick[9] % 128
        scales = cases.scales(seed, (n,), 1e-3) if pick[10] % 2 else 1e-3
        check(a, b, scales, **options)


def test_larger_than_the_cache_blocks(isa):
    """Several blocks along every dimension, without a slow oracle: B is a scaled identity."""
    k = n = 700
    m = 150
    a = cases.bytes8(1, (m, k), np.uint8)
    b = np.diag(np.full(n, -128, np.int8))
    want = a.astype(np.int32) * -128
    assert_same(qkernels.int8_gemm(a, b), want)
    ones = np.full((k, 1100), 127, np.int8)
    sums = (a.astype(np.int64).sum(axis=1) * 127).astype(np.int32)
    assert_same(qkernels.int8_gemm(a, ones), np.repeat(sums[:, None], 1100, axis=1))
