"""Checkpoints for the tests of `python -m qkernels quantize`, and what must come of them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import qkernels
from qkernels import safetensors_format

ROOT = Path(__file__).parents[1]
INT4 = {"format": "int4", "group_size": 32, "symmetric": False}  # what the command does by default


def tensors(layers=4, n=96, k=160, seed=0):
    """Some linear layers with biases, a norm and an embedding."""
    rng = np.random.default_rng(seed)
    made = {"embeddings.word.weight": rng.normal(size=(50, k)), "norm.weight": rng.normal(size=k),
            "steps": np.arange(3)}
    for i in range(layers):
        made |= {f"layers.{i}.weight": rng.normal(size=(n + i, k)), f"layers.{i}.bias": rng.normal(size=n + i)}
    return {name: x if x.dtype == np.int64 else x.astype(np.float32) for name, x in made.items()}


def write(path, arrays, metadata=None):
    """A plain safetensors file."""
    header = safetensors_format.lay_out(
        {name: (safetensors_format.OF_NUMPY[x.dtype.name], x.shape) for name, x in arrays.items()}, metadata or {})
    Path(path).write_bytes(header.raw + b"".join(x.tobytes() for x in arrays.values()))
    return path


def write_shards(folder, arrays, count=3):
    """A sharded checkpoint."""
    folder.mkdir()
    weight_map = {}
    for i in range(count):
        name = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = dict(list(arrays.items())[i::count])
        write(folder / name, part)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def command(*arguments, prepare=lambda: None, **options):
    """A process of the command line; prepare is called in it before it starts."""

    def start():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background would inherit "ignore"
        prepare()

    return subprocess.Popen([sys.executable, "-m", "qkernels", *map(str, arguments)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=start, **options)


def finished(process, code=0):
    """What a process wrote to its standard output and to that for errors; it must end with this code."""
    out, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return out, errors


def workers(process):
    """The processes that work on layers for a process of the command line."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_for(condition):
    """Until a function of no arguments gives true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def files_in(folder):
    """Name and bytes of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_quantized(path, arrays, options):
    """A file holds what quantize_weight gives; options: of each layer by name, all others are kept."""
    model = qkernels.load(path)
    assert set(model) == set(arrays)
    for name, x in arrays.items():
        if name in options:
            expected = qkernels.quantize_weight(x, **options[name]).to_state()
            found = model[name].to_state()
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[entry], expected[entry]) for entry in expected), name
        else:
            assert np.array_equal(model[name], x) and model[name].dtype == x.dtype, name
