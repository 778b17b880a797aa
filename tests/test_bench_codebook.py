"""`python -m qkernels bench --suite codebook` and `binary`: a tiny run of the real thing, and the check of results."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qkernels.__main__ import bench_module

bench_module()
from qkernels.bench.codebook import BinaryProblem, CodebookProblem  # noqa: E402
from qkernels.bench.peers import PEERS  # noqa: E402
from qkernels.bench.problem import WrongResult  # noqa: E402

pytestmark = pytest.mark.any_isa
ROOT = Path(__file__).parents[1]
SHAPE = 3, 64, 128


@pytest.mark.parametrize("suite, problem", [("codebook", CodebookProblem), ("binary", BinaryProblem)])
def test_command_line(tmp_path, suite, problem):
    """All products, with what needs no other package, in real processes."""
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "qkernels", "bench", "--suite", suite, "--threads", "1", "--rounds", "1",
               "--seconds", "0.0001", "--shape", *map(str, SHAPE), "--peers", "numpy-float32", "int8_gemm", "--json",
               path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text("utf-8"))["rows"]
    assert [row["product"] for row in rows] == list(problem.products)
    for row in rows:
        assert set(row["results"]) == {"qkernels", "peak", "bandwidth", "numpy-float32", "int8_gemm"}
        assert all(result["speed"] > 0 for result in row["results"].values()), row
        assert row["ratio"] is None  # what stands beside is no rival


@pytest.mark.parametrize("product", CodebookProblem.products)
def test_weight_is_the_one_that_we_multiply(product):
    problem = CodebookProblem(product, (1, 256, 1024))
    (weight,) = PEERS["qkernels"](1).prepare(problem).args[1:]
    assert (weight.dequantize() == problem.weight()).all()
    records = 1024 // 256  # a scale a channel is stored in each
    repeated = 2 * 256 * (records - 1) if problem.group_size is None else 0
    assert problem.b_bytes <= weight.packed_nbytes <= 1.02 * (problem.b_bytes + repeated)


@pytest.mark.parametrize("product", CodebookProblem.products)
def test_check_of_results(product):
    problem = CodebookProblem(product, SHAPE)
    exact = (problem.x.astype(np.float64) @ problem.w).astype(np.float32)
    problem.check(exact)
    swapped = problem.weight().reshape(-1, 2)[:, ::-1].reshape(SHAPE[1:])
    for result in (-exact, problem.x @ swapped.T, np.roll(exact, 1, axis=1), exact * np.float32(1.5)):
        with pytest.raises(WrongResult, match="of the elements"):
            problem.check(result.astype(np.float32))


def test_check_of_signs():
    problem = BinaryProblem("binary-gemm", SHAPE)
    exact = problem.a_s8.astype(np.int32) @ problem.b_s8.T
    problem.check(exact)
    problem.check(exact.astype(np.float32))
    exact[2, 63] += 2
    with pytest.raises(WrongResult, match="of the elements"):
        problem.check(exact)
