"""set_num_threads, get_num_threads, num_threads, QKERNELS_NUM_THREADS, and the number that nobody has set."""

import os
import subprocess
import sys
import threading

import cases
import numpy as np
import pytest

import qkernels
from qkernels.threads import _initial, available_cpus

pytestmark = pytest.mark.any_isa
SHOW = "import qkernels; print(qkernels.get_num_threads())"
WRONG_TYPES = [1.5, "2", None, True, [1], np.array([1])]
WRONG_VALUES = [0, -1, 1025, 2**70]


@pytest.fixture(autouse=True)
def same_number_afterwards():
    before = qkernels.get_num_threads()
    yield
    qkernels.set_num_threads(before)


def fresh(code, number=None):
    """A fresh interpreter: only there is QKERNELS_NUM_THREADS read."""
    environment = {key: value for key, value in os.environ.items() if key != "QKERNELS_NUM_THREADS"}
    if number is not None:
        environment["QKERNELS_NUM_THREADS"] = number
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("n", [1, 2, np.int64(7), np.uint8(3), 1024])
def test_set_and_get(n):
    assert qkernels.set_num_threads(n) is None
    assert qkernels.get_num_threads() == n and type(qkernels.get_num_threads()) is int
    assert qkernels.cpu_info()["threads"] == n


@pytest.mark.parametrize("n", WRONG_TYPES + WRONG_VALUES)
def test_bad_numbers_change_nothing(n):
    error = ValueError if n in WRONG_VALUES and n is not True else TypeError
    qkernels.set_num_threads(3)
    cases.raises(error, "n", qkernels.set_num_threads, n)
    cases.raises(error, "n", qkernels.num_threads(n).__enter__)
    assert qkernels.get_num_threads() == 3


def test_context_manager():
    qkernels.set_num_threads(5)
    with qkernels.num_threads(2) as nothing:
        assert nothing is None and qkernels.get_num_threads() == 2
        with qkernels.num_threads(4):
            assert qkernels.get_num_threads() == 4
        assert qkernels.get_num_threads() == 2
        qkernels.set_num_threads(7)
    assert qkernels.get_num_threads() == 5
    with pytest.raises(KeyError), qkernels.num_threads(1):
        raise KeyError
    assert qkernels.get_num_threads() == 5


def test_the_number_is_that_of_the_process():
    seen = []
    with qkernels.num_threads(6):
        thread = threading.Thread(target=lambda: seen.append(qkernels.get_num_threads()))
        thread.start()
        thread.join()
    assert seen == [6]


@pytest.mark.parametrize("number", ["1", "3", "1024"])
def test_environment(number):
    assert fresh(SHOW, number).stdout.strip() == number


@pytest.mark.parametrize("number", ["0", "-1", "1025", "two", "1.5", "2,3", " "])
def test_bad_environment(number, monkeypatch):
    monkeypatch.setenv("QKERNELS_NUM_THREADS", number)
    message = cases.raises(ValueError, "QKERNELS_NUM_THREADS", _initial)
    assert repr(number) in message and "1024" in message


def test_bad_environment_stops_the_import():
    got = fresh(SHOW, "two")
    last = got.stderr.strip().splitlines()[-1]
    assert got.returncode != 0 and not got.stdout
    assert last.startswith("ValueError: QKERNELS_NUM_THREADS")


@pytest.mark.parametrize("number", [None, ""])
def test_without_environment_it_is_the_cpus(number):
    assert int(fresh(SHOW, number).stdout) == available_cpus()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinities")
def test_affinity_counts():
    one = min(os.sched_getaffinity(0))
    assert fresh(f"import os; os.sched_setaffinity(0, [{one}]); {SHOW}").stdout.strip() == "1"


# ---------------------------------------------------------------------------- CPUs of a made-up machine

V2, V1 = "0::/a/b\n", "7:memory:/x\n4:cpu,cpuacct:/a/b\n0::/elsewhere\n"


def v1(folder, quota, period=100000):
    return {f"cpu{folder}/cpu.cfs_quota_us": f"{quota}\n", f"cpu{folder}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    "cgroup, files, cpus",
    [
        (V2, {"a/b/cpu.max": "200000 100000\n"}, 2),
        (V2, {"a/b/cpu.max": "max 100000\n"}, 8),
        (V2, {"a/b/cpu.max": "1500000 100000\n"}, 8),
        (V2, {"a/b/cpu.max": "150000 100000\n"}, 2),
        (V2, {"a/b/cpu.max": "1000 100000\n"}, 1),
        (V2, {"a/b/cpu.max": "75000 25000\n"}, 3),
        (V2, {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        (V2, {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "500000 100000\n"}, 3),
        (V2, {"cpu.max": "100000 100000\n"}, 1),
        (V2, {"a/b/c/cpu.max": "100000 100000\n", "b/cpu.max": "100000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/odd: name\n", {"odd: name/cpu.max": "400000 100000\n"}, 4),
        (V1, v1("/a/b", 200000), 2),
        (V1, v1("/a/b", 120000, 50000), 3),
        (V1, v1("/a/b", -1), 8),
        (V1, v1("/a", 500000), 5),
        (V1, v1("", 300000) | v1("/a", -1) | v1("/a/b", 600000), 3),
        (V1, v1("", 300000) | {"elsewhere/cpu.max": "100000 100000\n"}, 1),
        ("3:cpuset:/a/b\n", v1("/a/b", 200000), 8),
        (V2, {}, 8),
        (V1, {}, 8),
        ("", {"cpu.max": "100000 100000\n"}, 8),
    ],
)
def test_quota(cgroup, files, cpus, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    files = {"proc/cgroup": cgroup} | {f"fs/{name}": text for name, text in files.items()}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_cpus(tmp_path / "proc", tmp_path / "fs") == cpus


def test_no_cgroups_and_no_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, cpus in [(6, 6), (None, 1)]:
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert available_cpus(tmp_path, tmp_path) == cpus
