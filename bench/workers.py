"""Both ends of the pipe to a peer's process: a line of JSON asks, a line of JSON answers."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from timeit import Timer

import qkernels

from .peers import PEERS
from .problem import WrongResult
from .suites import PROBLEMS

REST_SECONDS = 2  # for the threads of a pool to stop spinning after their last work
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
                    "QKERNELS_NUM_THREADS")


class WorkerError(Exception):
    """What a worker could not do, in one line."""


class Worker:
    """A process that runs one peer; it sleeps between requests."""

    def __init__(self, peer, threads, isa):
        folder = str(Path(qkernels.__file__).parents[1])
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {
            "QKERNELS_ISA": isa, "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))}
        # In a session of its own, so that Ctrl-C reaches the parent alone.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qkernels", "bench", "--worker", peer, str(threads)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    def ask(self, **request):
        """Send a request and wait for its answer."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"its process ended with code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self):
        self.process.kill()
        self.process.communicate()


class Server:
    """The other end: a method for each request."""

    def __init__(self, peer, threads):
        self.peer = PEERS[peer](threads)

    def prepare(self, product, shape, seconds):
        """Set up a product, verify it, and find how many calls last `seconds`."""
        self.timer = None  # let go of the last one's matrices
        for problem in PROBLEMS[product].posed(product, shape, self.peer.a_bits):
            call = self.peer.prepare(problem)
            try:
                self.peer.check(problem, call())
                break
            except WrongResult as error:
                wrong = error
        else:
            raise wrong
        self.timer, self.calls = Timer(call), 1
        while (elapsed := self.timer.timeit(self.calls)) < seconds / 4:
            self.calls *= 4
        self.calls = max(1, round(self.calls * seconds / elapsed))
        return {"work": self.peer.work(problem), "a_bits": problem.a_bits}

    def run(self):
        """Take a turn: seconds of a call."""
        self.timer.timeit(max(1, self.calls // 8))  # the last turn was another process's: warm up
        seconds = self.timer.timeit(self.calls) / self.calls
        rest()
        return {"seconds": seconds}


def rest():
    """Return when no thread of this process computes any more."""
    deadline = time.monotonic() + REST_SECONDS
    while time.monotonic() < deadline:
        used = time.process_time()
        time.sleep(0.002)
        if time.process_time() - used < 0.0005:
            return
    raise WorkerError("its idle threads keep the CPU busy")


def serve(peer, threads):
    """Answer requests until they end."""
    # Libraries print: only answers may go to the pipe.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            server = server or Server(peer, threads)
            answer = getattr(server, request.pop("do"))(**request)
        except Exception as error:  # of a library that may raise anything: reported, and the others go on
            text = str(error).strip().partition("\n")[0]
            answer = {"error": text if isinstance(error, WorkerError) else f"{type(error).__name__}: {text}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
