"""Whatever stops a save, the file that was there stays as it was, and nothing is left beside it."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from cases import assert_same, raises

from qkernels import _files, files, load, save

pytestmark = pytest.mark.any_isa
LARGE = 2**20
WRITER = """
import sys, numpy as np, qkernels
qkernels.set_num_threads(1)
limit, path = int(sys.argv[1]), sys.argv[2]
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    qkernels.save(path, {"a": np.full(2**20, 2, np.uint8)})
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def path(tmp_path):
    """A file that is to survive."""
    save(tmp_path / "model", {"a": np.full(1000, 1, np.uint8)})
    return tmp_path / "model"


def assert_untouched(path):
    assert_same(load(path)["a"], np.full(1000, 1, np.uint8))
    assert os.listdir(path.parent) == [path.name]


def run(program, *arguments, before=()):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    command = [*before, sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("limit", [8, 100, 2**16, LARGE])
def test_a_file_too_large_for_the_process(path, limit):
    done = run(WRITER, limit, path)
    assert done.returncode == 0 and done.stdout == f"FileError {path}: {os.strerror(errno.EFBIG)}\n", done.stderr
    assert_untouched(path)


def test_a_full_disk(path):
    """A file system of 256 KiB, mounted for the writer alone; where that is not allowed, the limits above remain."""
    mounted = ["unshare", "--mount", "--map-root-user", "sh", "-c",
               'mount -t tmpfs -o size=256k tmpfs "$0" && cp "$0/../model" "$0/model" && "$@" && ls "$0" && '
               'cmp "$0/../model" "$0/model"']  # fmt: skip
    folder = path.parent / "disk"
    folder.mkdir()
    if not shutil.which("unshare") or subprocess.run(
            [*mounted[:4], "-c", 'mount -t tmpfs tmpfs "$0"', folder], capture_output=True).returncode:
        pytest.skip("this system does not let a process mount a file system")
    done = run(WRITER, 0, folder / "model", before=[*mounted, folder])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"FileError {folder / 'model'}: {os.strerror(errno.ENOSPC)}\nmodel\n"


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_writer(path, monkeypatch, function, error):
    def fails(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, function, fails)
        with pytest.raises(type(error)):
            save(path, {"a": np.full(LARGE, 2, np.uint8)})
    assert_untouched(path)


def test_interrupted_while_it_writes(path, monkeypatch):
    calls = []

    def fails(array, whole=files._bytes_of):
        calls.append(array)
        if len(calls) == 5:  # of 3 arrays each is read twice: for its checksum, and to be written
            raise KeyboardInterrupt
        return whole(array)

    monkeypatch.setattr(files, "_bytes_of", fails)
    with pytest.raises(KeyboardInterrupt):
        save(path, {name: np.full(LARGE, 2, np.uint8) for name in "abc"})
    assert_untouched(path)


def test_a_killed_writer(tmp_path):
    """The file is always one of those that were written; what a killed process leaves has a name of its own."""
    path = tmp_path / "model"
    program = """
import sys, numpy as np, qkernels
for i in range(10**6):
    qkernels.save(sys.argv[1], {"a": np.full(2**20, i % 251, np.uint8)})
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    for i in range(5):
        writer = subprocess.Popen([sys.executable, "-c", program, path], env=environment)
        before = path.stat().st_mtime_ns if path.exists() else 0
        end = time.monotonic() + 60
        while (path.stat().st_mtime_ns if path.exists() else 0) == before and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(0.003 * i)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        got = load(path)["a"]
        assert got.shape == (LARGE,) and (got == got[0]).all()
    assert all(name == "model" or name.endswith(".tmp") for name in os.listdir(tmp_path))


def test_writers_at_the_same_time(tmp_path):
    """And a reader: it sees one complete file or another."""
    path, gate, wrong = tmp_path / "model", threading.Barrier(4), []
    save(path, {"a": np.zeros(2**17, np.uint8)})

    def write(value):
        gate.wait()
        try:
            for _ in range(10):
                save(path, {"a": np.full(2**17, value, np.uint8)})
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(value,)) for value in (1, 2, 3)]
    for thread in threads:
        thread.start()
    gate.wait()
    while any(thread.is_alive() for thread in threads):
        got = load(path)["a"]
        assert got.shape == (2**17,) and got[0] in (0, 1, 2, 3) and (got == got[0]).all()
    for thread in threads:
        thread.join()
    assert wrong == [] and os.listdir(tmp_path) == ["model"]


def test_a_model_in_use_stays_as_it_was(path):
    model = load(path)
    array = model["a"]
    save(path, {"a": np.full(1000, 2, np.uint8)})
    assert (array == 1).all() and (load(path)["a"] == 2).all()
    path.unlink()
    assert (model["a"] == 1).all()


def test_paths_that_cannot_be_written(path):
    model = {"a": np.ones(3)}
    for bad, text in [(path.parent, "not a regular file"), (path.parent / "no" / "model", "no such folder"),
                      (path / "model", "no such folder"), ("/sys/model", ""), (path.parent / ("x" * 300), "")]:
        assert text in raises(OSError, None, save, bad, model)
    os.mkfifo(path.parent / "pipe")
    assert "not a regular file" in raises(OSError, None, save, path.parent / "pipe", model)
    (path.parent / "pipe").unlink()
    for bad in (None, 3, 1.5):
        with pytest.raises(TypeError):
            save(bad, model)
    assert_untouched(path)


def test_links_and_long_names(path):
    link = path.parent / "link"
    link.symlink_to("model")
    save(link, {"a": np.full(1000, 2, np.uint8)})
    assert link.is_symlink() and (load(path)["a"] == 2).all()
    assert sorted(os.listdir(path.parent)) == ["link", "model"]
    with pytest.raises(_files.FileError, match="File name too long"):  # with what the temporary one adds
        save(path.parent / ("x" * 250), {"a": np.ones(3)})
    assert sorted(os.listdir(path.parent)) == ["link", "model"] and load(link).nbytes == path.stat().st_size
