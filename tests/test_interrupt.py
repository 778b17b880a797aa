"""Long work in C ends when a signal handler of Python raises.

No clock decides: a signal is made pending and the work is begun without a step of the interpreter in between, which would
run the handler; so that whoever comes after the work is reached only if the work did not look.
"""

import _thread
import functools
import os
import signal
import threading
import time

import cases
import numpy as np
import pytest
from cases import assert_same
from weight_cases import packed, weight

import qkernels
from qkernels import _core, trellis

pytestmark = pytest.mark.any_isa
ROWS, COLS = 1200, 1024  # values that take long enough for one look
BETWEEN_LOOKS = 0.15  # seconds, more than there are between two looks


class Stop(Exception):
    pass


def stop(*_):
    raise Stop


@pytest.fixture(autouse=True)
def handler():
    before = signal.signal(signal.SIGUSR1, stop)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture(params=[1, 4])
def threads(request):
    with qkernels.num_threads(request.param):
        yield request.param


def in_c(*calls):
    """Make several calls, functions of C, one after another, without a step of the interpreter in between."""
    return list(map(functools.partial.__call__, map(functools.partial, calls)))


def is_stopped(work):
    time.sleep(BETWEEN_LOOKS)
    reached = []
    with pytest.raises(Stop):
        in_c(functools.partial(_thread.interrupt_main, signal.SIGUSR1), work, functools.partial(reached.append, 1))
    return not reached


def works():
    """Name and work: calls of the binding, each of about the least work that looks."""
    x, y = cases.floats(1, (ROWS, COLS)), np.empty((ROWS, COLS), np.float32)
    q, p = cases.bytes8(2, (ROWS, COLS), np.uint8), np.empty((ROWS, COLS // 2), np.uint8)
    one = {"rows": 1, "cols": x.size, "block": x.size, "channels": 1, "scales": 1}
    groups = {"rows": ROWS, "cols": COLS, "block": 32, "channels": ROWS, "scales": ROWS * COLS // 32}
    columns = {"rows": ROWS, "cols": COLS, "block": 0, "channels": 1, "scales": COLS}
    uint8, scheme = {"qmin": 0, "qmax": 255, "is_signed": False}, {"symmetric": False, "full_range": False}
    for name, layout in (("tensor", one), ("groups", groups), ("columns", columns)):
        scale, zero = np.ones(layout["scales"], np.float32), np.zeros(layout["scales"], np.int32)
        low, high = np.empty((2, layout["scales"]), np.float32)
        sums = np.empty((2, layout["scales"]))
        yield f"ranges, {name}", functools.partial(_core.ranges, x, layout, low, high)
        yield f"choose_qparams, {name}", functools.partial(_core.choose_qparams, x, layout, uint8, scheme, low, zero + 0)
        yield f"quantize, {name}", functools.partial(_core.quantize, x, layout, uint8, scale, zero, q.copy())
        yield f"dequantize, {name}", functools.partial(_core.dequantize, q, layout, uint8, scale, zero, y)
        yield f"fake_quantize, {name}", functools.partial(_core.fake_quantize, x, layout, uint8, scale, zero, y)
        yield f"gradients, {name}", functools.partial(
            _core.fake_quantize_grad, x, x, layout, uint8, scale, zero, y, *sums)
        yield f"dynamic_quantize, {name}", functools.partial(
            _core.dynamic_quantize, x, layout, uint8, scheme, q.copy(), low, zero + 0)
    yield "energy", functools.partial(_core.energy, np.concatenate([x, x]))
    yield "hadamard", functools.partial(_core.hadamard, x, COLS, 1, False, y)
    nibbles = q & 15
    for rows, n in ((ROWS, COLS), (1, q.size)):
        yield f"pack, {rows} rows", functools.partial(_core.pack_bits, nibbles, rows, n, 4, False, False, p)
        yield f"unpack, {rows} rows", functools.partial(_core.unpack_bits, p, rows, n, 4, False, False, q.copy())

    b = qkernels.pack_b(q)
    yield "pack_b", functools.partial(_core.PackedB.__init__, _core.PackedB.__new__(_core.PackedB), q, 0)
    yield "unpack_b", b.unpack
    rest = 0, 0, None, None, None, None, None, 0, "float"
    out = np.empty((ROWS, COLS), np.int32)
    yield "int8_gemm", functools.partial(_core.int8_gemm, q[:, :ROWS], b, None, *rest, out[:, :COLS])
    yield "int8_gemm of bytes", functools.partial(_core.int8_gemm, q[:, :900], q[:900], None, *rest, out)
    many = np.zeros((2000, 16, 16), np.uint8)
    yield "int8_gemm of a batch", functools.partial(_core.int8_gemm, many, many, None, *rest, np.empty(many.shape, np.int32))
    bits = cases.bytes8(3, (2000, 512), np.uint8)
    yield "binary_gemm", functools.partial(_core.binary_gemm, bits, bits, 4096, np.empty((2000, 2000), np.int32))

    for kind in (("int8", None), ("int4", 32), ("nf4", 64), ("trellis2", None), ("binary", None)):
        qw = packed(weight(1, ROWS, COLS, *kind)).packed
        plain, out = qw.unpack(), np.empty((ROWS, ROWS), np.float32)
        yield f"unpack {kind}", qw.unpack
        for m in (1200, 1100, 1):  # one row alone takes a larger weight
            if m > 1:
                yield f"linear {kind}, {m} rows", functools.partial(
                    _core.linear, x[:m], qw, None, None, None, 0, 0, -np.inf, np.inf, out[:m])
        if kind[0] in ("int8", "int4"):
            new = _core.PackedWeight.__new__(_core.PackedWeight)
            coding = {"int8": 0, "int4": 1}[kind[0]]
            yield f"pack {kind}", functools.partial(_core.PackedWeight.__init__, new, *plain, coding, kind[1])
    words = cases.floats(4, (4000, 32), 50.0)
    yield "encode_trellis", functools.partial(_core.encode_trellis, words, trellis.levels(2), 2)


def test_work_is_stopped(threads):
    missed = [name for name, work in works() if not is_stopped(work)]
    assert not missed


def test_what_follows_is_right(threads):
    """Nothing of an interrupted call is left behind."""
    a, b = cases.bytes8(1, (400, 700), np.uint8), cases.bytes8(2, (700, 900), np.int8)
    packed_b, out = qkernels.pack_b(b), np.zeros((400, 900), np.int32)
    want = qkernels.int8_gemm(a, b)
    assert is_stopped(functools.partial(
        _core.int8_gemm, a, packed_b, None, 0, 0, None, None, None, None, None, 0, "float", out))
    for _ in range(3):
        assert_same(qkernels.int8_gemm(a, packed_b, out=out), want)


def test_a_handler_that_raises_nothing_changes_nothing(threads):
    seen = []
    signal.signal(signal.SIGUSR1, lambda *_: seen.append(qkernels.int8_gemm(np.ones((2, 3), np.int8), np.ones((3, 4), np.int8))))
    a = cases.bytes8(1, (1000, 1000), np.int8)
    out, want = np.zeros((1000, 1000), np.int32), a.astype(np.int64) @ a
    time.sleep(BETWEEN_LOOKS)
    during = in_c(functools.partial(_thread.interrupt_main, signal.SIGUSR1),
                  functools.partial(_core.int8_gemm, a, a, None, 0, 0, None, None, None, None, None, 0, "float", out),
                  functools.partial(len, seen))[-1]
    assert during == 1 and (seen[0] == 3).all() and (out == want).all()


def test_other_threads_go_on():
    """A handler runs on the main thread; calls of others end as they would."""
    a = cases.bytes8(1, (1000, 1000), np.int8)
    want, results = qkernels.int8_gemm(a, a), []
    thread = threading.Thread(target=lambda: results.extend(qkernels.int8_gemm(a, a) for _ in range(20)))
    thread.start()
    with pytest.raises(Stop):
        while thread.is_alive():
            _thread.interrupt_main(signal.SIGUSR1)
            time.sleep(0.01)
    thread.join()
    assert len(results) == 20
    for got in results:
        assert_same(got, want)


def test_the_thread_that_forked_is_the_main_one_of_the_child():
    def child():
        pid = os.fork()
        if pid:
            ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            return
        try:
            x = np.zeros((ROWS, COLS), np.float32)
            os._exit(0 if is_stopped(functools.partial(_core.hadamard, x, COLS, 1, False, x)) else 1)
        finally:
            os._exit(2)

    ended = []
    thread = threading.Thread(target=child)
    thread.start()
    thread.join()
    assert ended == [0]
