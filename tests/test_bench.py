"""`python -m qkernels bench`: a tiny run of the real thing, its parts with made-up peers, and bench/compare.py."""

import json
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qkernels import _core
from qkernels.__main__ import bench_module, main

cli = bench_module()
from qkernels.bench import compare, measure, workers  # noqa: E402
from qkernels.bench.int8 import Int8Problem  # noqa: E402
from qkernels.bench.peers import OTHERS, PEERS  # noqa: E402
from qkernels.bench.peers.machine import aligned_bytes  # noqa: E402
from qkernels.bench.peers.peer import Peer  # noqa: E402
from qkernels.bench.problem import WrongResult  # noqa: E402
from qkernels.bench.suites import PROBLEMS  # noqa: E402

pytestmark = pytest.mark.any_isa
ROOT = Path(__file__).parents[1]
TINY = ["--threads", "1", "--rounds", "2", "--seconds", "0.001"]


def test_command_line(tmp_path):
    """Whatever rivals are installed, in real processes."""
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "qkernels", "bench", *TINY, "--shape", "3", "20", "10", "--json", path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text("utf-8"))
    assert result["cpu"] in done.stdout and result["rounds"] == 2
    assert "numpy-float32" in result["peers"]
    assert set(result["peers"]) | set(result["missing"]) == {name for name in OTHERS if PEERS[name].offers("int32")}
    for name in result["missing"]:
        assert f"{name}: not installed: pip install {' '.join(PEERS[name].requires)}\n" in done.stdout

    (row,) = result["rows"]
    assert (row["product"], row["threads"], row["m"], row["n"], row["k"]) == ("int32", 1, 3, 20, 10)
    assert {"qkernels", "peak", "bandwidth", "numpy-float32"} <= set(row["results"])
    for name in ("qkernels", "peak", "bandwidth", "numpy-float32"):
        assert len(row["results"][name]["rounds"]) == 2 and row["results"][name]["speed"] > 0, name
    assert 0 < row["of_peak"] < 1 and 0 < row["of_bandwidth"] < 1
    table = done.stdout.partition("int32, 1 thread, ")[2].splitlines()
    assert table[1].split()[:4] == ["M", "N", "K", "us"] and table[2].split()[:3] == ["3", "20", "10"]


@pytest.mark.parametrize("product", PROBLEMS)
def test_own_products_are_right_on_each_isa(product, isa):
    problem, own = PROBLEMS[product](product, (5, 37, 70)), PEERS["qkernels"](1)
    own.check(problem, own.prepare(problem)())


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and all(product in text for product in PROBLEMS) and "--worker" not in text


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--shape", "1", "2", "0"], ["--seconds", "inf"],
                                       ["--threads", "none"], ["--peers", "qkernels"], ["--product", "int3"],
                                       ["--suite", "int4"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *arguments])
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_bad_json_path_is_one_line(tmp_path, capsys):
    assert main(["bench", "--json", str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", f"qkernels bench: {tmp_path}: not a regular file\n")


def test_shapes():
    assert cli.read_shapes("small") == [(16, 16, 16), (64, 64, 64), (7, 100, 50), (32, 256, 256)]
    for path in cli.SHAPES.glob("*.txt"):
        assert all(len(shape) == 3 for shape in cli.read_shapes(path.stem))


def test_interrupt_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    real, path = cli.measure, tmp_path / "result.json"

    def interrupted(crew, product, shape, *rest):
        if shape == [2, 2, 2]:
            raise KeyboardInterrupt
        return real(crew, product, shape, *rest)

    monkeypatch.setattr(cli, "measure", interrupted)
    monkeypatch.setattr(measure, "Worker", made_up_worker({"qkernels": 1, "peak": 2, "bandwidth": 1}))
    shapes = ["--shape", "1", "1", "1", "--shape", "2", "2", "2"]
    assert main(["bench", *TINY, *shapes, "--peers", "--json", str(path)]) == 130
    assert [row["m"] for row in json.loads(path.read_text("utf-8"))["rows"]] == [1]
    assert "interrupted" in capsys.readouterr().err


# Rounds, with workers made up -----------------------------------------------------------------


def made_up_worker(speeds, started=None):
    """A class of workers that do so many 1e9 operations a second; None: the process dies while it runs."""

    class MadeUpWorker:
        def __init__(self, peer, threads, isa):
            self.peer, self.alive = peer, True
            self.process = SimpleNamespace(poll=lambda: None if self.alive else -11)
            if started is not None:
                started.append(peer)

        def ask(self, do, **_):
            if do == "prepare":
                return {"work": 1e9, "a_bits": 8}
            if speeds[self.peer] is None:
                self.alive = False
                raise workers.WorkerError("its process ended with code -11")
            return {"seconds": 1 / speeds[self.peer]}

        def close(self):
            pass

    return MadeUpWorker


def test_figures_and_a_peer_that_dies(monkeypatch):
    speeds = {"qkernels": 300, "peak": 400, "bandwidth": 100, "onnxruntime": 200, "torch-int_mm": 250,
              "numpy-float32": 1000, "numkong": None}
    started = []
    monkeypatch.setattr(measure, "Worker", made_up_worker(speeds, started))
    with measure.Crew(OTHERS, 1, "scalar") as crew:
        row = measure.measure(crew, "int32", (2, 8, 8), rounds=3, seconds=1)
        again = measure.measure(crew, "int32", (5, 8, 8), rounds=3, seconds=1)
    assert (row["best_rival"], row["ratio"]) == ("torch-int_mm", pytest.approx(1.2))  # float32 is no rival
    assert row["of_peak"] == pytest.approx(0.75) and row["of_bandwidth"] == pytest.approx(0.75)
    assert row["results"]["qkernels"]["speed"] == pytest.approx(300)
    assert row["results"]["numkong"] == {"error": "its process ended with code -11"}
    assert "torch-x86" not in row["results"]  # has no int32 product
    assert row["b_bytes"] == 64
    assert again["of_bandwidth"] is None and "bandwidth" not in again["results"]
    assert started.count("numkong") == 2 and started.count("qkernels") == 1


def test_without_rivals(monkeypatch):
    monkeypatch.setattr(measure, "Worker", made_up_worker({"qkernels": None, "peak": 1}))
    with measure.Crew([], 1, "scalar") as crew:
        row = measure.measure(crew, "fixed", (8, 8, 8), rounds=2, seconds=1)
    assert row["ratio"] is row["of_peak"] is row["best_rival"] is None


# The worker's end, with peers made up ---------------------------------------------------------


def made_up_peer(monkeypatch, wrong_from=256):
    """A server of a peer that goes wrong on activations from a value on."""

    class MadeUp(Peer):
        def int32(self, p):
            result = np.asarray(p.a_s8, np.int32) @ p.b_s8.astype(np.int32)
            return lambda: result + (p.a_u8.max() >= wrong_from)

    monkeypatch.setitem(PEERS, "made-up", MadeUp)
    return workers.Server("made-up", 1)


def test_worker_times_a_right_result(monkeypatch):
    server = made_up_peer(monkeypatch)
    assert server.prepare("int32", (4, 5, 60), 0.001) == {"work": 2400, "a_bits": 8}
    assert 0 < server.run()["seconds"] < 0.1


def test_worker_falls_back_to_seven_bits(monkeypatch):
    server = made_up_peer(monkeypatch, wrong_from=128)
    assert server.prepare("int32", (4, 5, 60), 0.001)["a_bits"] == 7
    assert PEERS["qkernels"].a_bits == (8,)


def test_worker_refuses_a_wrong_result(monkeypatch):
    server = made_up_peer(monkeypatch, wrong_from=0)
    with pytest.raises(WrongResult, match="100 % of the elements"):
        server.prepare("int32", (4, 5, 60), 0.001)


def test_rest_notices_a_thread_that_spins(monkeypatch):
    monkeypatch.setattr(workers, "REST_SECONDS", 0.1)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            zlib.crc32(bytes(2**20))  # without the interpreter's lock

    threads = [threading.Thread(target=spin) for _ in range(4)]  # one of them computes, however busy the machine is
    for thread in threads:
        thread.start()
    try:
        with pytest.raises(workers.WorkerError, match="idle threads"):
            workers.rest()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_check_of_results():
    problem = Int8Problem("int32", (4, 300, 50))
    exact = problem.a_s8.astype(np.int32) @ problem.b_s8.astype(np.int32)
    real = (problem.x @ problem.w).astype(np.float32)
    steps = np.clip(np.rint(real / problem.out_scale), -128, 127)
    for product, right in (("int32", exact), ("float32", real), ("dynamic", real), ("int8", steps.astype(np.int8)),
                           ("int8", (steps + 128).astype(np.uint8))):
        problem.product = product
        problem.check(right)
        off = right.copy()
        off[2, -1] += 2 if right.dtype.itemsize == 1 else 1
        with pytest.raises(WrongResult):
            problem.check(off)
        with pytest.raises(WrongResult, match="shape"):
            problem.check(right[:, :-1])


def test_read_loop(isa):
    words = aligned_bytes(3 * _core.READ_BLOCK).view(np.uint32)
    words[:] = np.random.default_rng(1).integers(0, 2**32, words.size)
    assert _core.read_loop(words, 2) == 2 * int(words.sum(dtype=np.uint64)) % 2**32


# bench/compare.py -----------------------------------------------------------------------------


@pytest.fixture
def result_file(tmp_path):
    def write(name, speeds, spread=2.0, peak=100.0):
        rows = [{"isa": "avx2", "threads": 1, "product": "int32", "m": m, "n": 8, "k": 8,
                 "results": {"peak": {"speed": peak, "spread_percent": 0.0},
                             "qkernels": {"error": "x"} if speed is None else
                             {"speed": speed, "spread_percent": spread}}}
                for m, speed in speeds.items()]
        (tmp_path / name).write_text(json.dumps({"cpu": "a CPU", "rows": rows}))
        return str(tmp_path / name)

    return write


def test_compare_marks_what_the_spreads_do_not_explain(result_file, capsys):
    before = result_file("before", {1: 100.0, 2: 100.0, 3: 100.0, 4: 1.0})
    after = result_file("after", {1: 98.5, 2: 90.0, 3: 110.0, 5: 1.0}, peak=110.0)
    assert compare.main([before, after]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["+10.0%", "SLOWER", "faster"]
    assert "-1.5%" in lines[1] and "-10.0%" in lines[2] and "+10.0%" in lines[3]
    assert lines[4:] == ["only in before: 1 rows", "only in after: 1 rows"]


@pytest.mark.parametrize(("limit", "code"), [("5", 1), ("15", 0)])
def test_compare_fails_above(result_file, limit, code):
    before, after = result_file("before", {1: 100.0, 2: 100.0}), result_file("after", {1: 99.5, 2: 90.0})
    assert compare.main([before, after, "--fail-above", limit]) == code


def test_compare_fails_on_a_product_that_fails(result_file):
    assert compare.main([result_file("before", {1: 1.0}), result_file("after", {1: None})]) == 1


# bench/test_*.py ------------------------------------------------------------------------------


def test_benchmarks_run():
    """Once each, and every public function has one."""
    pytest.importorskip("pytest_benchmark")
    command = [sys.executable, "-m", "pytest", "bench", "--benchmark-disable", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
