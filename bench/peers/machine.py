"""The limits of the machine, measured beside the products: multiplies in registers, and reading memory."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from qkernels import _core

from .peer import Peer

CALL_SECONDS = 0.005  # much more than starting a turn on several threads takes


def at_once(function, arguments):
    """A function that calls `function` on each argument, each in a thread of its own."""
    if len(arguments) == 1:
        return partial(function, arguments[0])
    pool = ThreadPoolExecutor(len(arguments))
    return lambda: list(pool.map(function, arguments))


def rounds_in(call, seconds):
    """How many rounds, which is what `call` takes, last about so long."""
    call(1)
    start = time.perf_counter()
    call(16)
    return max(1, round(16 * seconds / (time.perf_counter() - start)))


class Limit(Peer):
    is_rival = False

    def check(self, problem, result):
        pass  # there is no product: what is timed is that its instructions run


class Peak(Limit):
    """The multiply instructions of the selected GEMM kernel, on registers alone."""

    name = "peak"

    def prepare(self, _):
        self.rounds = rounds_in(_core.gemm_peak, CALL_SECONDS)
        return at_once(_core.gemm_peak, [self.rounds] * self.threads)

    def work(self, problem):
        return 2 * self.threads * _core.gemm_peak(1) * self.rounds


def aligned_bytes(size):
    """An uninitialized uint8 array that starts at a cache line."""
    raw = np.empty(size + 63, np.uint8)
    start = -raw.__array_interface__["data"][0] % 64
    return raw[start:start + size]


class Bandwidth(Limit):
    """Reading a buffer of B's size, each thread a part of it, again and again."""

    name = "bandwidth"

    def prepare(self, problem):
        block = _core.READ_BLOCK * self.threads
        self.size = -(-problem.b_bytes // block) * block
        buffer = aligned_bytes(self.size)
        buffer[:] = 1  # until it is written, memory is one page of zeros
        parts = buffer.reshape(self.threads, -1)
        self.rounds = rounds_in(partial(_core.read_loop, parts[0]), CALL_SECONDS)
        return at_once(lambda part: _core.read_loop(part, self.rounds), parts)

    def work(self, problem):
        """Bytes instead of operations."""
        return self.size * self.rounds
