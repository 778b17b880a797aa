"""The floating-point mode of the caller changes no result, and is the caller's again after each call."""

import contextlib
import platform
import subprocess
import sys

import cases
import numpy as np
import pytest
from cases import assert_same

import qkernels
from qkernels import QuantizedWeight, _core, allocation, ptq, qat
from qkernels.calibration import HistogramObserver, InputStatistics, MovingAverageObserver
from qkernels.sensitivity import kl_divergence, sensitivity
from qkernels.static import StaticLinear

# As the register of the CPU has them: subnormal numbers are flushed to zero, and rounding goes up or to zero.
MODES = ({"flush": 0x1F80 | 0x8040, "up": 0x1F80 | 0x4000, "flush, to zero": 0x1F80 | 0x8040 | 0x6000}
         if platform.machine() in ("x86_64", "AMD64") else
         {"flush": 1 << 24, "up": 1 << 22, "flush, to zero": 1 << 24 | 3 << 22, "half, too": 1 << 24 | 1 << 19})
RAISED = 0x3F  # of x86: exceptions seen so far, which are no mode

X = cases.floats(1, (40, 64)) * np.exp(cases.ints(2, (40, 1), -90, 0)).astype(np.float32)  # with rows of subnormal numbers
W = cases.floats(3, (24, 64)) * np.exp(-cases.ints(4, (24, 1), 0, 20) * 0.8).astype(np.float32)
TINY = (cases.floats(5, (8, 64)) * np.float32(2)**-128).astype(np.float32)
A, B = cases.bytes8(6, (40, 64), np.uint8), cases.bytes8(7, (64, 24), np.int8)
HALVES = np.float16(cases.floats(8, (24,), 1e-5))
SEEN = InputStatistics(64).observe(cases.floats(9, (200, 64)))
INPUT_SCALES = np.ldexp(np.float32(1), cases.ints(10, (64,), -140, 10, np.int32))


def weights():
    for format, options in [("int8", {}), ("int4", {"group_size": 32, "symmetric": False}), ("int4", {"ranges": "mse"}),
                            ("nf4", {"group_size": 32}), ("codebook4", {}), ("log4", {}), ("binary", {}), ("ternary", {}),
                            ("trellis2", {}), ("int8", {"scale_dtype": "float32"}), ("int4", {"rotate": True}),
                            ("int4", {"method": "gptq", "calibration": SEEN}), ("int4", {"method": "hqq"}),
                            ("int4", {"method": "awq", "calibration": SEEN}),
                            ("int4", {"method": "adaround", "calibration": SEEN})]:  # fmt: skip
        yield str((format, *options)), lambda format=format, options=options: qkernels.quantize_weight(W, format, **options)


def calls():
    """Name and call of what computes with floats."""
    packed = {name: make() for name, make in weights()}
    for name, make in weights():
        yield f"quantize_weight {name}", lambda make=make: make().to_state()
    for name, qw in packed.items():
        yield f"dequantize {name}", qw.dequantize
        for options in ({}, {"activations": "float32"}, {"activation_scales": "group", "activation": "gelu"}):
            yield f"linear {name} {options}", lambda qw=qw, options=options: qkernels.linear(X, qw, HALVES, **options)
    int8 = packed["('int8',)"]
    scaled = QuantizedWeight.from_state(int8.to_state() | {"input_scales": INPUT_SCALES})
    yield "linear, input scales", lambda: qkernels.linear(X[:5], scaled)
    yield "dequantize, input scales", scaled.dequantize
    yield "from_state", lambda: QuantizedWeight.from_state(scaled.to_state()).to_state()
    yield "from_int4", lambda: QuantizedWeight.from_int4(B.T >> 4, HALVES**2 + np.float16(6e-8)).dequantize()
    for scale in (1e-40, np.float32(1e-40), np.full(24, 1e-40), np.full(24, 3e-39, np.float32)):
        yield f"int8_gemm {scale!r}", lambda scale=scale: qkernels.int8_gemm(
            A, B, scale, row_scales=np.full(40, 1e-3), bias=HALVES)
        yield f"requantization {scale!r}", lambda scale=scale: qkernels.int8_gemm(
            A, B, scale, out_dtype="uint8", out_scale=1e-38)
    for name, x in (("X", X), ("tiny", TINY)):
        for options in ({}, {"axis": 0}, {"axis": 1}, {"group_size": 16}, {"method": "mse"}, {"method": "percentile"},
                        {"method": "entropy"}, {"symmetric": False}):
            yield f"choose_qparams {name} {options}", lambda x=x, options=options: qkernels.choose_qparams(x, **options)[:2]
        yield f"dynamic_quantize {name}", lambda x=x: qkernels.dynamic_quantize(x, axis=0)
        yield f"quantize {name}", lambda x=x: qkernels.quantize(x, 1e-39)
        yield f"fake_quantize {name}", lambda x=x: qkernels.fake_quantize(x, np.float64(3e-40))
        yield f"hadamard {name}", lambda x=x: qkernels.hadamard(x, seed=1)
        yield f"gradient {name}", lambda x=x: qat.learned_fake_quantize_backward(x, x, 2e-39)
        yield f"lsq_scale {name}", lambda x=x: qat.lsq_scale(x, axis=0)
        yield f"k-means {name}", lambda x=x: qkernels.Codebook.kmeans(x, 5).levels
        yield f"codebook {name}", lambda x=x: qkernels.Codebook(TINY[0]).encode(x)
        for observer in (MovingAverageObserver, HistogramObserver):
            yield f"{observer.__name__} {name}", lambda x=x, less=x * np.float32(0.7), observer=observer: [
                *(seen := observer(axis=0).observe(x).observe(less)).qparams()[:2], seen.low, seen.high]
        yield f"statistics {name}", lambda x=x: InputStatistics(64).observe(x).mean_abs
    yield "dequantize", lambda: qkernels.dequantize(A, 1e-44)
    yield "Lloyd-Max", lambda: qkernels.Codebook.lloyd_max("laplace", 6).levels
    yield "uniform", lambda: qkernels.Codebook.uniform(-1e-40, 1e-39, 7).levels
    yield "smooth", lambda: ptq.smooth([W], SEEN)
    yield "equalize", lambda: ptq.equalize([W[:, :24], W[:, :24]])
    yield "correct_bias", lambda: ptq.correct_bias(np.zeros(24, np.float32), W, int8, SEEN)
    qparams = qkernels.QParams(np.float32(0.01), np.uint8(7), "uint8", None, None)
    yield "StaticLinear", lambda: StaticLinear(W, input=qparams)(X)
    yield "sensitivity", lambda: sensitivity(W, [{"format": "int4"}], calibration=SEEN)
    yield "kl_divergence", lambda: kl_divergence(X, X[::-1])
    yield "allocate", lambda: allocation.allocate([[3e-310, 1e-310], [2e-310, 1e-320]], [[1, 2], [1, 2]], 3)


@contextlib.contextmanager
def in_mode(mode):
    before = _core.set_floating_mode(mode)
    try:
        yield
    finally:
        _core.set_floating_mode(before)


def arrays(result):
    return list(result.values()) if isinstance(result, dict) else result if isinstance(result, (list, tuple)) else [result]


def test_results(isa):
    wrong = []
    for name, call in calls():
        want = [np.array(x) for x in arrays(call())]
        for mode, value in MODES.items():
            with in_mode(value):
                try:
                    got = arrays(call())
                finally:
                    left = _core.set_floating_mode(None)
            got = [np.array(x) for x in got]
            if left & ~RAISED != value:
                wrong.append((mode, name, hex(left)))
            if [(x.dtype, x.shape, x.tobytes()) for x in got] != [(x.dtype, x.shape, x.tobytes()) for x in want]:
                wrong.append((mode, name, "another result"))
    assert not wrong


def test_the_modes_matter():
    """Or else nothing above would be seen."""
    tiny, third = np.full(100, 1e-39, np.float32), np.full(100, 3.0, np.float32)
    with in_mode(MODES["flush"]):
        assert not (tiny * np.float32(1)).any()
    with in_mode(MODES["up"]):
        assert ((np.float32(1) / third) * 3 > 1).all()
    assert (tiny * np.float32(1) == tiny).all()


def test_a_call_that_fails():
    with in_mode(MODES["flush"]):
        cases.raises(ValueError, "x", qkernels.quantize, np.float32([np.nan]), 1.0)
        cases.raises(ValueError, "scales", qkernels.int8_gemm, A, B, -1.0)
        assert _core.set_floating_mode(None) & ~RAISED == MODES["flush"]


THREADS = """
import sys
import numpy as np
import qkernels
from qkernels import _core

mode, threads = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
x = (rng.normal(size=(300, 512)) * 1e-3).astype(np.float32)
w = (rng.normal(size=(700, 512)) * 1e-3).astype(np.float32)
qw = qkernels.quantize_weight(w, "int8", scale_dtype="float32")
state = qw.to_state()
state["scales"] = (state["scales"] * np.float32(1e-33)).astype(np.float32)
qw = qkernels.QuantizedWeight.from_state(state)
qkernels.set_num_threads(threads)
if mode:
    _core.set_floating_mode(mode)  # before there are any workers: they begin with it
sys.stdout.buffer.write(qkernels.linear(x, qw).tobytes())
"""


@pytest.mark.any_isa
def test_threads_that_start_in_the_mode():
    got = {subprocess.run([sys.executable, "-c", THREADS, str(mode), threads], capture_output=True, check=True).stdout
           for mode in (0, MODES["flush"], MODES["up"]) for threads in ("1", "4")}
    assert len(got) == 1
    values = np.abs(np.frombuffer(got.pop(), np.float32))
    assert ((values > 0) & (values < np.finfo(np.float32).tiny)).any()


def test_workers_of_before(isa):
    """They are at work already when the mode of the caller changes."""
    x, w = cases.floats(1, (300, 512)), cases.floats(2, (700, 512))
    qw = QuantizedWeight("int8", (w * 100).astype(np.int8).view(np.uint8), np.full(700, 1e-42, np.float32))
    with qkernels.num_threads(4):
        want = qkernels.linear(x, qw)
        for mode in MODES.values():
            with in_mode(mode):
                got = qkernels.linear(x, qw)
            assert_same(got, want)
