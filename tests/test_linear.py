"""linear against the oracle, bit for bit: shapes, formats, ways of x, epilogues, layouts, threads."""

import itertools
import math

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from weight_cases import GROUPS, KINDS, MODES, packed, weight

import qkernels
from qkernels import ref

BY_MODE = pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(mode.values()))
ROWS = [0, 1, 2, 5, 6, 7, 13, 40]
DEPTHS = [0, 1, 31, 32, 100, 256, 300, 1024]
COLUMNS = [1, 15, 64, 65, 130]
RANGES = [None, "relu", "relu6", (-0.25, 0.5), (-math.inf, 0), (1, 1)]


def check(x, w, *args, **options):
    want = cases.oracle(ref.linear, x, w, *args, **options)
    got = qkernels.linear(x, packed(w), *args, **options)
    assert_same(got, want, (x.shape, w.codes.shape, w.bits, w.group_size, options))
    assert got.flags.c_contiguous
    return got


@BY_MODE
@pytest.mark.parametrize("k", DEPTHS)
def test_shapes(isa, k, mode):
    """Every M with every N; the kind of weight changes from one to the next."""
    for i, (m, n) in enumerate(itertools.product(ROWS, COLUMNS)):
        w = weight(i, n, k, *KINDS[(i * 7 + k) % len(KINDS)])
        check(cases.floats(i + 1, (m, k), 5.0), w, cases.floats(i + 2, (n,)), **mode)


@BY_MODE
def test_every_kind_of_weight(isa, mode):
    for i, kind in enumerate(KINDS):
        for m, n, k in [(1, 18, 300), (7, 65, 160), (3, 17, 1030)]:
            check(cases.floats(i, (m, k), 5.0), weight(i, n, k, *kind), **mode)


@BY_MODE
def test_groups_that_blocks_divide_otherwise(isa, mode):
    """Blocks of 32 to 256 in groups of any multiple of 32, whole rows cut into equal parts."""
    sizes = [(224, 500), (320, 700), (352, 800), (384, 769), (416, 417), (768, 1600), (1056, 2113), (None, 513)]
    for i, (group_size, k) in enumerate(sizes):
        for format, symmetric in itertools.product(("int8", "int4", "int2"), (True, False)):
            w = weight(i, 33, k, format, group_size, symmetric)
            check(cases.floats(i, (5, k), 5.0), w, **mode)


@BY_MODE
def test_extremes(isa, mode):
    """The largest sums that a block can have, in both signs, and scales of every size."""
    for format, top in (("int8", 255), ("int4", 15), ("int2", 3)):
        for k, group_size in [(512, None), (1024, 512), (100, 32)]:
            codes = np.zeros((6, k), np.uint8)
            codes[1::2] = top
            codes[2, ::2] = top
            groups = 1 if group_size is None else -(-k // group_size)
            zeros = np.repeat(np.uint8([[0], [0], [top], [top], [0], [top]]), groups, axis=1)
            scales = np.repeat(np.float16([[2.0**-24], [65504], [1], [6e-5], [3e-7], [0.1]]), groups, axis=1)
            x = np.float32([[1], [-1], [3e38], [1e-38], [2.0**-149], [0]]) * np.ones((6, k), np.float32)
            x[0, 1::2] *= -1
            bits = int(format[-1])
            for zero_points in (None, zeros):
                with np.errstate(over="ignore"):
                    check(x[[0, 1, 3, 4, 5]], ref.Weight(codes, scales, zero_points, bits, group_size), **mode)
                small = np.maximum(scales * np.float16(0.001), np.float16(2.0**-24))
                small = ref.Weight(codes, small, zero_points, bits, group_size)
                check(x[2:4] * np.float32(1e-3), small, **mode)


@BY_MODE
def test_sizes_within_a_row(isa, mode):
    """Blocks whose values differ by many powers of two, of zeros, and of subnormals."""
    x = cases.floats(1, (9, 320)) * np.ldexp(np.float32(1), cases.ints(2, (9, 320), -40, 40))
    x[:, 64:128] = 0
    x[4] *= np.float32(2.0**-120)
    x[5:7] = np.ldexp(np.float32(1), cases.ints(3, (2, 320), -149, -100))
    limits = np.float32([8225532, 8225789, 8225790, 8225917, 64516 * 127, 8388607, 2**23, 2**22 + 1])
    x[7], x[8] = np.tile(limits, 40), np.repeat(limits, 40)
    for group_size in (None, 32, 64):
        check(x.astype(np.float32), weight(1, 20, 320, "int4", group_size, False), **mode)


@BY_MODE
def test_bias_and_clamp(isa, mode):
    w, x, bias = weight(1, 66, 100, "int4", 32, False), cases.floats(2, (7, 100), 3.0), cases.floats(3, (66,), 9.0)
    for shift, activation in itertools.product((None, bias), RANGES):
        y = check(x, w, shift, activation=activation, **mode)
        low, high = {"relu": (0, np.inf), "relu6": (0, 6), None: (-np.inf, np.inf)}.get(activation, activation)
        assert y.min() >= np.float32(low) and y.max() <= np.float32(high)
    w = weight(1, 66, 100, "int8", None)
    cancelled = ref.linear(x[:1], w, **mode)[0]
    for shift in (-cancelled, cancelled, np.full(66, -0.0, np.float32)):
        check(x, w, shift, **mode)
    assert (check(x[:1], w, -cancelled, **mode) == 0).all()  # no fused multiply-add at the end
    for kind in (np.float16, np.float64):
        assert_same(qkernels.linear(x, packed(w), bias.astype(kind), **mode),
                    check(x, w, bias.astype(kind).astype(np.float32), **mode))  # fmt: skip


@BY_MODE
def test_leading_dimensions(isa, mode):
    for lead, group_size in itertools.product([(1,), (), (0,), (2, 3), (2, 0, 3), (2, 1, 2, 2)], (None, 32)):
        for n, k in [(17, 70), (0, 5), (5, 0)]:
            w = weight(1, n, k, "int4", group_size, True)
            bias = cases.floats(3, (n,))
            y = check(cases.floats(2, lead + (k,), 5.0), w, bias, **mode)
            assert y.shape == lead + (n,)
            assert k or (y == bias).all()


@BY_MODE
def test_strides_of_x_and_out(isa, mode):
    w, x = weight(1, 18, 70, "int4", 32), cases.floats(2, (2, 5, 70))
    qw, want = packed(w), ref.linear(x, w, **mode)
    for name, view in cases.strided(x).items():
        assert_same(qkernels.linear(view, qw, **mode), want, name)
    for name, out in cases.strided(np.zeros_like(want)).items():
        if name != "read-only":
            assert qkernels.linear(x, qw, out=out, **mode) is out
            assert_same(out, want, name)
    broadcast = np.broadcast_to(x[:1], x.shape)
    assert_same(qkernels.linear(broadcast, qw, **mode), ref.linear(broadcast, w, **mode))


def test_out_overlaps_an_input(isa):
    w = weight(1, 8, 8, "int4")
    qw, memory = packed(w), cases.floats(1, (12, 8))
    raises(ValueError, "out", qkernels.linear, memory[:8], qw, out=memory[4:])
    raises(ValueError, "out", qkernels.linear, memory[:8], qw, memory[11], out=memory[4:])
    halves = memory.view(np.float16).reshape(-1)[:64].reshape(8, 8)
    raises(ValueError, "out", qkernels.linear, halves, qw, out=memory[:8])
    want = ref.linear(memory[:4], w)
    assert_same(qkernels.linear(memory[:4], qw, out=memory[4:8]), want)


def test_rows_are_by_themselves(isa):
    """A huge row does not spoil its small neighbor, one of zeros gives the bias, and M does not matter."""
    w = weight(1, 130, 300, "int4", 32, False)
    x = np.stack([cases.floats(2, (300,), 1e4), cases.floats(3, (300,), 1e-4), np.zeros(300, np.float32)])
    bias = cases.floats(4, (130,))
    for mode in MODES:
        got = check(np.concatenate([x] * 17), w, bias, **mode)
        for row, y in zip(x, got):
            assert_same(qkernels.linear(row, packed(w), bias, **mode), y)
        assert (got[2] == bias).all()


@BY_MODE
def test_threads(isa, mode):
    for m, n, k in [(1, 700, 1024), (40, 600, 300), (90, 65, 512)]:
        qw, x = packed(weight(m, n, k, "int4", 64, False)), cases.floats(2, (m, k))
        answers = []
        for threads in (1, 2, 5):
            with qkernels.num_threads(threads):
                answers.append(qkernels.linear(x, qw, **mode))
        assert_same(answers[1], answers[0])
        assert_same(answers[2], answers[0])


@BY_MODE
def test_several_blocks_of_rows_and_columns(isa, mode):
    """Beyond the caches, without a slow oracle: whole numbers that every way of x and float32 hold exactly."""
    m, n, k = 300, 520, 4096
    x = np.zeros((m, k), np.float32)
    columns = cases.ints(1, (m,), 0, k - 1)
    x[np.arange(m), columns] = 127
    codes = cases.ints(2, (n, k), 0, 15, np.uint8)
    w = ref.Weight(codes, np.full((n, k // 32), 0.5, np.float16), None, 4, 32)
    want = np.float32(127 * 0.5) * (codes[:, columns].T - np.float32(8))
    assert (qkernels.linear(x, packed(w), **mode) == want).all()


def test_halves(isa):
    w, x = weight(1, 18, 70, "int4", 32), cases.floats(2, (3, 70)).astype(np.float16)
    for mode in MODES:
        assert_same(qkernels.linear(x, packed(w), **mode), ref.linear(x.astype(np.float32), w, **mode))


def test_bfloat16(isa):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    w, x = weight(1, 18, 70, "int4", 32), cases.floats(2, (3, 70)).astype(ml_dtypes.bfloat16)
    bias = cases.floats(3, (18,)).astype(ml_dtypes.bfloat16)
    want = ref.linear(x.astype(np.float32), w, bias.astype(np.float32))
    assert_same(qkernels.linear(x, packed(w), bias), want)


@pytest.mark.parametrize("group_size", GROUPS)
def test_float32_is_as_good_as_a_float32_product(isa, group_size):
    """Against float64: at most twice the error of float32 np.matmul, and within the bound of the docstring."""
    for seed, (m, n, k) in enumerate([(1, 64, 1024), (16, 33, 4096), (5, 20, 300)]):
        w = qkernels.quantize_weight(cases.floats(seed, (n, k), 0.1), "int4", group_size=group_size).dequantize()
        qw = qkernels.quantize_weight(cases.floats(seed, (n, k), 0.1), "int4", group_size=group_size)
        x = cases.floats(seed + 9, (m, k)) * cases.scales(seed + 1, (m, k), 1.0)
        exact = x.astype(np.float64) @ w.T.astype(np.float64)
        error = np.abs(qkernels.linear(x, qw, activations="float32") - exact)
        usual = np.abs(x @ w.T - exact)
        assert np.sqrt(np.square(error).mean()) <= 2 * np.sqrt(np.square(usual).mean())
        block = ref.weights.block_size(k, group_size)
        largest = np.maximum.reduceat(np.abs(x), np.arange(0, k, block), axis=1).astype(np.float64)
        weights = np.add.reduceat(np.abs(w), np.arange(0, k, block), axis=1).astype(np.float64)
        rounding = 3 * 2.0**-24 * (k // block + 4) * (np.abs(x).astype(np.float64) @ np.abs(w).T)
        assert (error <= largest @ weights.T / 2**22 + rounding).all()
