"""`python -m qkernels bench --suite lowbit`: a tiny run of the real thing, and the check of results."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qkernels
from qkernels.__main__ import bench_module

bench_module()
from qkernels.bench import measure  # noqa: E402
from qkernels.bench.lowbit import SCHEMES, LowBitProblem  # noqa: E402
from qkernels.bench.peers import PEERS  # noqa: E402
from qkernels.bench.problem import WrongResult  # noqa: E402

pytestmark = pytest.mark.any_isa
ROOT = Path(__file__).parents[1]
SHAPE = 3, 64, 128


def test_command_line(tmp_path):
    """All products, with what needs no other package, in real processes."""
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "qkernels", "bench", "--suite", "lowbit", "--threads", "1", "--rounds", "1",
               "--seconds", "0.0001", "--shape", *map(str, SHAPE), "--peers", "numpy-float32", "int8_gemm", "--json",
               path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text("utf-8"))["rows"]
    assert [row["product"] for row in rows] == list(SCHEMES)
    assert "timed with" not in done.stdout  # activations have no range that could be smaller
    for row in rows:
        beside = {"numpy-float32", "int8_gemm"} if SCHEMES[row["product"]].activations == "int8" else {"numpy-float32"}
        assert set(row["results"]) == {"qkernels", "peak", "bandwidth"} | beside
        assert all(result["speed"] > 0 and len(result["rounds"]) == 1 for result in row["results"].values()), row
        assert row["ratio"] is None  # what stands beside is no rival
        assert 0 < row["of_peak"] and 0 < row["of_bandwidth"]
        assert f"{row['product']}, 1 thread, {row['isa']}: float32 in" in done.stdout


@pytest.mark.parametrize("product", SCHEMES)
def test_check_of_results(product):
    problem = LowBitProblem(product, SHAPE)
    exact = problem.x.astype(np.float64) @ problem.w
    problem.check(exact.astype(np.float32))
    problem.check(exact.astype(np.float16))

    def wrong(x=problem.x, **changes):
        """The result of another x, or with other parts of the weight."""
        other = LowBitProblem(product, SHAPE)
        vars(other).update(changes)
        return (x @ other.w).astype(np.float32)

    codes, scales, zero_points = problem.codes, problem.scales, problem.zero_points
    results = [wrong(codes=codes.reshape(len(codes), -1, 2)[:, :, ::-1].reshape(codes.shape)),  # pairs swapped
               wrong(codes=codes ^ 2 ** (problem.bits - 1)), wrong(scales=np.roll(scales, 1, axis=0)), -exact]
    if problem.bits < 8:  # one step of 256 is less than rounded activations change
        results.append(wrong(codes=codes - np.float32(1)))
    if problem.group_size == 32:
        results.append(wrong(scales=scales[:, ::-1]))
    if zero_points is not None:
        results.append(wrong(zero_points=np.roll(zero_points, 1, axis=0)))
    for result in results:
        for dtype in (np.float32, np.float16):
            with pytest.raises(WrongResult, match="of the elements"):
                problem.check(result.astype(dtype))


@pytest.mark.parametrize("product", [name for name, scheme in SCHEMES.items() if scheme.activations == "float32"])
def test_rounded_activations_are_another_product(product):
    """8-bit integers pass for nobody who says float32; results in 16 bits, PyTorch's, say less."""
    problem = LowBitProblem(product, SHAPE)
    q, scale, zero_point = qkernels.dynamic_quantize(problem.x)
    result = qkernels.dequantize(q, scale, zero_point) @ problem.w
    problem.check(result.astype(np.float16))
    with pytest.raises(WrongResult):
        problem.check(result)


@pytest.mark.parametrize("product", SCHEMES)
def test_bytes_of_the_weight(product):
    """What our weight takes, but for its header, the ends of lines, and scales that it repeats in a long group."""
    problem = LowBitProblem(product, (1, 256, 1024))
    (weight,) = PEERS["qkernels"](1).prepare(problem).args[1:]
    assert problem.b_bytes <= weight.packed_nbytes <= 1.01 * problem.b_bytes
    assert (weight.dequantize() == problem.weight()).all()


def test_bandwidth_is_of_the_bytes_stored(monkeypatch):
    speeds = {"qkernels": 300, "peak": 400, "bandwidth": 100}
    monkeypatch.setattr(measure.Crew, "ask", lambda _, name, do, **request: (
        {"work": 1e9, "a_bits": None} if do == "prepare" else {"seconds": 1 / speeds[name]}))
    with measure.Crew([], 1, "scalar") as crew:
        row = measure.measure(crew, "int4-asymmetric", (2, 8, 256), rounds=2, seconds=1)
    assert row["b_bytes"] == 8 * 256 // 2 + 8 * 2 * (2 + 1)
    assert row["of_bandwidth"] == pytest.approx(300 / (2 * 2 * 8 * 256) * row["b_bytes"] / 100)
