"""python -m qkernels quantize, killed and interrupted by signals: the same command ends with the same bytes.

QKERNELS_TEST_KILLS is how many times it is killed, 3 by default.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import checkpoint_cases as cases
import pytest

pytestmark = pytest.mark.any_isa
KILLS = int(os.environ.get("QKERNELS_TEST_KILLS", 3))
SLOW = ("--format", "int4", "--method", "hqq", "--processes", 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A sharded checkpoint, the files that come of it, and how long that takes."""
    folder = tmp_path_factory.mktemp("source")
    model = cases.write_shards(folder / "m", cases.tensors(layers=12, n=96, k=1200))
    start = time.monotonic()
    cases.finished(cases.command("quantize", model, folder / "out", *SLOW))
    return model, cases.files_in(folder / "out"), time.monotonic() - start


def test_killed_at_random_moments(tmp_path, source):
    """The moments are others in each run."""
    model, expected, seconds = source
    kills = 0
    while kills < KILLS:
        process = cases.command("quantize", model, tmp_path / "out", *SLOW)
        try:
            process.wait(random.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()  # its own processes have to notice
            kills += 1
        else:  # it was faster
            assert cases.files_in(tmp_path / "out") == expected
            shutil.rmtree(tmp_path / "out")
        process.communicate()
    cases.finished(cases.command("quantize", model, tmp_path / "out", *SLOW))
    assert cases.files_in(tmp_path / "out") == expected


def test_processes_end_with_the_one_that_started_them(tmp_path, source):
    """They would wait for work for ever, and go on with that which they have."""
    model, _, _ = source
    process = cases.command("quantize", model, tmp_path / "out", *SLOW)
    journal = tmp_path / "out" / "model.safetensors.index.json.journal"
    cases.wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 3)
    workers = cases.workers(process)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    cases.wait_for(lambda: not any(is_at_work(pid) for pid in workers))


def is_at_work(pid):
    """Whether a process has not ended; its parent may not have asked yet how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_control_c(tmp_path, source):
    """The layers at work are finished, no others begin."""
    model, expected, _ = source
    process = cases.command("quantize", model, tmp_path / "out", *SLOW)
    journal = tmp_path / "out" / "model.safetensors.index.json.journal"
    cases.wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 3)
    process.send_signal(signal.SIGINT)
    _, errors = cases.finished(process, 130)
    assert errors.splitlines() == [
        "qkernels quantize: finishes the layers at work; Ctrl-C once more gives them up",
        "qkernels quantize: interrupted; the same command goes on"]
    done = {json.loads(line).get("layer") for line in journal.read_text().splitlines()} - {None}
    assert 2 <= len(done) < 12
    _, errors = cases.finished(cases.command("quantize", model, tmp_path / "out", *SLOW))
    assert f"{len(done)} of 12 layers are done already" in errors
    assert cases.files_in(tmp_path / "out") == expected


def test_control_c_twice(tmp_path, source):
    """All ends at once."""
    model, _, _ = source
    process = cases.command("quantize", model, tmp_path / "out", "--format", "trellis3", "--window", 16)
    journal = tmp_path / "out" / "model.safetensors.index.json.journal"
    cases.wait_for(journal.exists)
    time.sleep(1)
    start = time.monotonic()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    _, errors = cases.finished(process, 130)
    assert errors.splitlines()[-1] == "qkernels quantize: interrupted; the same command goes on"
    assert time.monotonic() - start < 5
