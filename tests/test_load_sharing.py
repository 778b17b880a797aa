"""Processes that use one file share its pages: what the second one takes of its own is measured."""

import json
import os
import pathlib
import subprocess
import sys

import cases
import numpy as np
import pytest
from weight_cases import packed, weight

import qkernels

pytestmark = pytest.mark.any_isa
USER = """
import json, sys, numpy as np, qkernels

def memory(path):
    "What the system says of this process, and of its map of the file, in bytes."
    own, of_file = {}, None
    for line in open("/proc/self/smaps_rollup"):
        name, _, value = line.partition(":")
        if value.endswith("kB\\n"):
            own[name] = int(value.split()[0]) * 1024
    for line in open("/proc/self/smaps"):
        if line.split()[0][-1] != ":":
            is_file = line.rstrip().endswith(path)
            of_file = {} if is_file and of_file is None else of_file
        elif is_file and line.endswith("kB\\n"):
            name, value = line.split()[:2]
            of_file[name[:-1]] = of_file.get(name[:-1], 0) + int(value) * 1024
    return own, of_file

path = sys.argv[1]
x = np.ones((2, 1024), np.float32)
small = qkernels.quantize_weight(x, "int4", group_size=32)
qkernels.linear(x, small), qkernels.int8_gemm(np.ones((1, 2), np.int8), qkernels.pack_b(np.ones((2, 2), np.int8)))
before, _ = memory(path)
model = qkernels.load(path)
for name, value in model.items():
    if isinstance(value, qkernels.QuantizedWeight):
        qkernels.linear(x, value)
    elif isinstance(value, qkernels.PackedB):
        qkernels.int8_gemm(np.ones((1, 1024), np.int8), value)
    else:
        value.sum()
print("ready", flush=True)
sys.stdin.readline()
after, of_file = memory(path)
print(json.dumps({"before": before, "after": after, "file": of_file}), flush=True)
sys.stdin.readline()
"""


def start(path):
    environment = os.environ | {"QKERNELS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                                "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    user = subprocess.Popen([sys.executable, "-c", USER, path], env=environment, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert user.stdout.readline() == "ready\n"
    return user


@pytest.mark.skipif(not pathlib.Path("/proc/self/smaps_rollup").exists(), reason="Linux tells what is shared")
def test_the_second_process_takes_next_to_no_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    model = {f"int8.{i}": packed(weight(i, 1024, 1024, "int8", 32)) for i in range(3)}
    model |= {f"int4.{i}": packed(weight(i, 1024, 1024, "int4", 32, False)) for i in range(3)}
    model["b"] = qkernels.pack_b(cases.bytes8(9, (1024, 1024), np.int8))
    model["embedding"] = cases.floats(10, (1024, 512))
    qkernels.save(path, model)
    size = path.stat().st_size
    assert size > 6 * 2**20
    users = [start(path), start(path)]
    seen = []
    try:
        for user in users:  # both have used all of it, and are alive
            user.stdin.write("\n")
            user.stdin.flush()
            seen.append(json.loads(user.stdout.readline()))
    finally:
        for user in users:
            user.communicate("\n", timeout=60)
    for got in seen:
        of_file = got["file"]
        assert of_file["Size"] >= size and of_file["Rss"] > 0.9 * size  # it was used, and that is what is counted
        private = of_file["Private_Clean"] + of_file["Private_Dirty"]
        assert private < 0.02 * size, of_file
        grown = got["after"]["Anonymous"] - got["before"]["Anonymous"]
        assert grown < 0.1 * size, grown
