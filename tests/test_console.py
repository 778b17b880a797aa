"""What the command line does when what reads its output has gone, or cannot show it."""

import os
import signal
import subprocess
import sys

import checkpoint_cases as cases
import numpy as np
import pytest

import qkernels
from qkernels import console

pytestmark = pytest.mark.any_isa


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    cases.write(folder / "m.safetensors", cases.tensors(layers=2))
    qkernels.save(folder / "large", {f"a tensor with a rather long name {i}": np.zeros(1) for i in range(2000)})
    return folder


@pytest.mark.parametrize("stream", ["stdout", "stdout and stderr"])
@pytest.mark.parametrize("arguments", [
    "info", "--help", "quantize --help", "demo --help", "bench --help", "inspect {}/large", "inspect {}/large --json",
    "quantize {}/m.safetensors {}/x.safetensors --dry-run",
    "quantize {}/m.safetensors {}/out.safetensors --processes 1",
])
def test_a_reader_that_has_gone(folder, arguments, stream):
    """Not a word, and the exit status of other tools; what was to be written is complete."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "qkernels", *arguments.format(folder, folder).split()]
    done = subprocess.run(command, cwd=cases.ROOT, stdout=write, timeout=120, text=True, check=False,
                          stderr=write if "stderr" in stream else subprocess.PIPE)
    os.close(write)
    codes = {128 + signal.SIGPIPE} | ({0} if "--help" in arguments else set())  # argparse does not look
    assert done.returncode in codes and not done.stderr, done.stderr
    if "out.safetensors" in arguments:
        assert qkernels.load(folder / "out.safetensors")["layers.0.weight"].format == "int4"


def test_head(folder):
    """With some lines that are read."""
    command = f"{sys.executable} -m qkernels inspect {folder}/large | head -n 3; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=cases.ROOT, capture_output=True, text=True, check=True)
    *lines, status = done.stdout.splitlines()
    assert len(lines) == 3 and status == str(128 + signal.SIGPIPE) and not done.stderr


def test_no_standard_output(folder):
    command = f"{sys.executable} -m qkernels quantize {folder}/m.safetensors {folder}/y.safetensors --processes 1 >&-"
    done = subprocess.run(["bash", "-c", command], cwd=cases.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr


def test_another_pipe_that_is_broken():
    """Is an error as before."""
    with pytest.raises(BrokenPipeError):
        console.ending_quietly(raising_broken_pipe)


def raising_broken_pipe():
    raise BrokenPipeError


def test_one_line():
    assert console.one_line("ünïcode 😀") == "ünïcode 😀"
    assert console.one_line("a\nb\x1b[31m\udcff\0") == r"a\nb\x1b[31m\udcff\x00"


def test_messages_have_no_codes_of_terminals(tmp_path):
    x = np.zeros((8, 32), np.float32)
    x[0, 0] = np.nan
    model = cases.write(tmp_path / "m.safetensors", {"\x1b[31mred.weight": x})
    _, errors = cases.finished(cases.command("quantize", model, tmp_path / "out", "--processes", 1), 2)
    assert r"\x1b[31mred.weight" in errors and "\x1b" not in errors
