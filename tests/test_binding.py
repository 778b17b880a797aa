"""No array passes into C as something else than it is: wrong dtype, size, strides, alignment and read-only results."""

import itertools

import cases
import numpy as np
import pytest
from cases import assert_same
from weight_cases import packed, weight

import qkernels
from qkernels import _core, qat, trellis

pytestmark = pytest.mark.any_isa
M, K, N = 6, 64, 40
LAYOUT = {"rows": M, "cols": K, "block": 32, "channels": M, "scales": 2 * M}
UINT8, SCHEME = {"qmin": 0, "qmax": 255, "is_signed": False}, {"symmetric": False, "full_range": False}


# What is another right argument.
OTHERS = {(_core.encode_trellis, 0): ("short", "long", "shorter rows"), (_core.encode_trellis, 1): ("long",),
          (_core.energy, 0): ("short", "long", "shorter rows"), (_core.read_loop, 0): ("long", "wider", "dtype")}


def calls():
    """Functions of the binding and their arguments; arrays are what C reads or writes."""
    x, q = cases.floats(1, (M, K)), cases.bytes8(2, (M, K), np.uint8)
    scale, zero = np.ones(2 * M, np.float32), np.zeros(2 * M, np.int32)
    sums = np.zeros(2 * M)
    yield _core.ranges, x, LAYOUT, scale, scale.copy()
    yield _core.qparams_of_ranges, scale, scale + 1, UINT8, SCHEME, scale.copy(), zero
    yield _core.choose_qparams, x, LAYOUT, UINT8, SCHEME, scale, zero
    yield _core.quantize, x, LAYOUT, UINT8, scale, zero, q
    yield _core.dequantize, q, LAYOUT, UINT8, scale, zero, x
    yield _core.fake_quantize, x, LAYOUT, UINT8, scale, zero, x.copy()
    yield _core.fake_quantize_grad, x, x, LAYOUT, UINT8, scale, zero, x.copy(), sums, sums.copy()
    yield _core.dynamic_quantize, x, LAYOUT, UINT8, SCHEME, q, scale, zero
    yield _core.hadamard, x, K, 1, False, x.copy()
    yield _core.pack_bits, q & 15, M, K, 4, False, False, np.zeros((M, K // 2), np.uint8)
    yield _core.unpack_bits, np.zeros((M, K // 4), np.uint8), M, K, 2, False, False, q
    yield _core.binary_gemm, q, q[:3], 8 * K, np.zeros((M, 3), np.int32)
    yield _core.encode_trellis, x, trellis.levels(2), 2
    qw = packed(weight(1, N, K, "int4", 32, False))
    yield _core.linear, x, qw.packed, cases.scales(3, (K,)), None, np.zeros(N, np.float32), 0, 0, -np.inf, np.inf, np.zeros((M, N), np.float32)
    for kind in (("int4", 32, False), ("codebook4", 32), ("codebook4 by row", 32), ("trellis3", None), ("int8", None, True, "float32")):
        w = weight(1, N, K, *kind)
        qw = packed(w)
        codes, scales, zero_points = qw.packed.unpack()
        record = qkernels.formats.find(qw.format)
        yield (_core.PackedWeight, codes, scales, zero_points, qw._coding(record), qw.group_size, qw.levels, K,
               qw._state_bits(record))  # fmt: skip
    yield _core.energy, x
    yield _core.read_loop, np.zeros(_core.READ_BLOCK // 4, np.uint32), 1


def wrong_arrays(x):
    """Arrays of which C would read, or write, something else."""
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    yield "strided", wide[..., ::2]
    yield "backward", x[::-1] if len(x) > 1 else wide[..., ::2]
    if x.itemsize > 1:
        yield "unaligned", cases.strided(x)["unaligned"]
        yield "byte order", x.astype(x.dtype.newbyteorder())
    yield "short", x[:-1].copy()
    yield "shorter rows", x[..., :-1].copy()
    yield "long", np.concatenate([x, x])
    yield "dtype", x.astype(np.complex64)
    yield "wider", x.astype(np.int64)


@pytest.mark.parametrize("call", list(calls()), ids=lambda call: call[0].__name__)
def test_wrong_arrays_are_refused(call):
    function, *args = call
    function(*args)
    for i, x in enumerate(args):
        if not isinstance(x, np.ndarray):
            continue
        for what, wrong in wrong_arrays(x):
            if what in OTHERS.get((function, i), ()):
                continue
            try:
                function(*args[:i], wrong, *args[i + 1 :])
            except (TypeError, ValueError):
                continue
            pytest.fail(f"argument {i}: {what} was taken")
        with pytest.raises((TypeError, ValueError, AttributeError)):
            if function not in (_core.PackedWeight, _core.fake_quantize_grad, _core.linear):  # some are optional there
                function(*args[:i], None, *args[i + 1 :])
            else:
                raise ValueError


def test_wrong_layouts_are_refused():
    x, scale, zero = cases.floats(1, (M, K)), np.ones(2 * M, np.float32), np.zeros(2 * M, np.int32)
    q = np.zeros((M, K), np.uint8)
    for change in ({"rows": M + 1}, {"cols": K + 1}, {"block": 16}, {"channels": M + 1}, {"scales": 2 * M - 1}, {"block": 0}):
        cases.raises(ValueError, None, _core.quantize, x, LAYOUT | change, UINT8, scale, zero, q)
    for bits in (0, 3, 8, -1):
        cases.raises(ValueError, "bits", _core.pack_bits, q, M, K, bits, False, False, q)
    cases.raises(ValueError, "group_size", _core.weight_block, 100, 48)
    codes, scales = np.zeros((2, 64), np.uint8), np.ones((2, 2), np.float16)
    for group, coding, window in ((48, 1, 0), (32, 11, 0), (32, -1, 0), (32, 1, 17)):
        cases.raises((ValueError, OverflowError), None, _core.PackedWeight, codes, scales, None, coding, group, None, 64, window)


def test_read_only_results_are_refused():
    for function, *args in calls():
        for i, x in enumerate(args):
            if isinstance(x, np.ndarray) and function in (_core.quantize, _core.hadamard, _core.linear) and i == len(args) - 1:
                frozen = x.copy()
                frozen.flags.writeable = False
                cases.raises(ValueError, None, function, *args[:i], frozen)


def test_unaligned_arrays_are_those_that_they_are(isa):
    """Inputs and results that start anywhere, of each function that takes them."""
    x, q, b = cases.floats(1, (M, K)), cases.bytes8(2, (M, K), np.uint8), cases.bytes8(3, (K, N), np.int8)
    qw = qkernels.quantize_weight(cases.floats(4, (N, K)), "int4", group_size=32)
    scaled = cases.scales(5, (N,))
    functions = [
        (qkernels.linear, (x, qw, cases.floats(6, (N,))), np.zeros((M, N), np.float32)),
        (qkernels.quantize, (x, 0.1), q.view(np.int8)), (qkernels.dequantize, (q, np.float32(0.1)), x.copy()),
        (qkernels.hadamard, (x,), x.copy()), (qkernels.int8_gemm, (q, b), np.zeros((M, N), np.int32)),
        (qkernels.int8_gemm, (q, b, scaled), np.zeros((M, N), np.float32)),
        (qkernels.binary_gemm, (q, q), np.zeros((M, M), np.int32)),
        (qkernels.fake_quantize, (x, 0.1), None), (qkernels.dynamic_quantize, (x,), None),
        (qkernels.choose_qparams, (x,), None), (qat.lsq_scale, (x,), None), (qat.fake_quantize_backward, (x, x, 0.1), None),
        (lambda w: qkernels.quantize_weight(w, "nf4", group_size=32).dequantize(), (x,), None),
        (lambda *args: qkernels.QuantizedWeight("int4", *args).dequantize(), (q & 15, cases.scales(7, (M,))), None),
        (lambda scales: qkernels.QuantizedWeight("int8", q, scales).dequantize(), (np.float16(cases.scales(7, (M,))),), None),
    ]  # fmt: skip
    for function, args, out in functions:
        want = function(*args)
        moved = [cases.strided(x)["unaligned"] if isinstance(x, np.ndarray) else x for x in args]
        for got, expected in itertools.zip_longest(as_arrays(function(*moved)), as_arrays(want)):
            assert_same(got, expected, function)
        if out is not None:
            unaligned = cases.strided(out)["unaligned"]
            unaligned.flags.writeable = True
            assert function(*moved, out=unaligned) is unaligned
            assert (unaligned == want).all()


def as_arrays(result):
    return [np.asarray(x) for x in result if not isinstance(x, (str, int, type(None)))] if isinstance(result, tuple) else [result]
