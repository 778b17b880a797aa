"""Headers of many megabytes: no more memory than what they say takes, whether they are to be used or to do harm."""

import json
import subprocess
import sys

import checkpoint_cases as cases
import numpy as np
import pytest
from file_cases import resealed

from qkernels import load, model_file, safetensors_format, save
from qkernels.__main__ import main

pytestmark = pytest.mark.any_isa
SIZE = 20_000_000  # of the headers here; read by json.loads as a whole, such as these take 10 to 25 times as much
LARGEST = 8 * SIZE  # bytes that may be taken for one
TENSOR = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
MEASURED = """
import sys
from qkernels import load

def of_process(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))

before = of_process("VmRSS")
try:
    print(len(load(sys.argv[1])))
except ValueError as error:
    print(error)
print(of_process("VmHWM") - before)
"""


def filled(start, piece, end):
    return start + piece * ((SIZE - len(start) - len(end)) // len(piece)) + end


def numbered(count, value):
    return ",".join(f'"{i}":{value}' for i in range(count))


HARMFUL = {
    "lists": filled('{"a":[', "[],", "[]]}"),
    "objects": filled('{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"b":[', "{},", "{}]}}"),
    "numbers": filled('{"a":{"dtype":"F32","shape":[', "999,", "1],\"data_offsets\":[0,0]}}"),
    "tensors that are none": "{%s}" % numbered(1_000_000, "[[],[]]"),
    "an array": filled("[", "{},", "{}]"),
    "metadata of lists": filled('{"__metadata__":{"a":[', "[],", "[]]}}"),
    "spaces": filled("{", " ", "}"),
}
OWN = {
    "lists for entries": filled('{"version":1,"written_by":"x","entries":{"a":[', "[],", "[]]}}"),
    "lists before entries": filled('{"a":[', "[],", '[]],"version":1,"entries":{},"checksums":{}}'),
    "entries that are none": '{"version":1,"entries":{%s},"checksums":{}}' % numbered(1_000_000, "[[],[]]"),
    "checksums that are none": '{"version":1,"entries":{},"checksums":{%s}}' % numbered(1_000_000, "[[],[]]"),
    "things that are no part of it": '{"version":1,%s}' % numbered(1_000_000, "[[],[]]"),
    "another version": filled('{"version":2,"written_by":"3.0","entries":[', "[],", "[]]}"),
}


def read_within(path, most):
    """What load says of a file, in a process that may take so many bytes for it."""
    done = subprocess.run([sys.executable, "-c", MEASURED, path], cwd=cases.ROOT, capture_output=True, text=True,
                          check=True)
    *said, taken = done.stdout.splitlines()
    assert int(taken) < most, f"{int(taken):,} bytes"
    return "\n".join(said)


@pytest.mark.parametrize("what", [*HARMFUL, *OWN])
def test_harmful(tmp_path, what):
    text = HARMFUL.get(what)
    if text is None:
        text = '{"__metadata__":{"qkernels_checksum":"00000000","qkernels":%s}}' % json.dumps(OWN[what])
    (tmp_path / "x").write_bytes(resealed(text.encode()))
    said = read_within(tmp_path / "x", LARGEST)
    assert said.startswith(f"{tmp_path}/x: ") and len(said) < 1200
    if what == "another version":
        assert "version: got 2, takes 1; it was written by qkernels 3.0" in said


def test_many_tensors(tmp_path):
    """A model that has them is used; the memory is less than two kilobytes for each."""
    count = 60_000
    names = [f"model.layers.{i % 60}.mlp.experts.{i}.gate_proj.scale" for i in range(count)]
    save(tmp_path / "x", dict.fromkeys(names, np.zeros(1, np.float32)))
    assert read_within(tmp_path / "x", 2000 * count) == str(count)


def test_what_is_longer_than_the_format_allows(tmp_path, monkeypatch, capsys):
    """Is neither written, which is known before any work, nor read."""
    model = cases.write(tmp_path / "m.safetensors", cases.tensors(layers=2))
    save(tmp_path / "quantized", {"w": np.zeros(3)})
    before = cases.files_in(tmp_path)
    monkeypatch.setattr(safetensors_format, "LARGEST_HEADER", 1000)
    assert main(["quantize", str(model), str(tmp_path / "out.safetensors"), "--processes", "1"]) == 2
    line, = capsys.readouterr().err.splitlines()
    assert f"out: {tmp_path}/out.safetensors: the names and metadata of 7 tensors take" in line
    with pytest.raises(ValueError, match="of 1 tensors take .* bytes, a safetensors file has 1000 for them"):
        save(tmp_path / "x", {"a" * 1000: np.zeros(3)})
    monkeypatch.setattr(safetensors_format, "LARGEST_HEADER", 100)
    with pytest.raises(ValueError, match="quantized: is no safetensors file, or cut off: a header of"):
        load(tmp_path / "quantized")
    assert cases.files_in(tmp_path) == before


@pytest.mark.parametrize("text, names", [
    ('{"a":%s}' % TENSOR, ["a"]), (' \n{ "a" : %s ,\t"b":%s } \r\n' % (TENSOR, TENSOR), ["a", "b"]), ("{}", []),
    ("{ }", []), ('{"__metadata__":{}}', []), (r'{"\u0061\n\"\\\/\ud83d\ude00":%s}' % TENSOR, ['a\n"\\/😀']),
    ('{"é":%s}' % TENSOR.replace(":", " : ").replace(",", " , "), ["é"]),
    ('{"a":{"shape":[],"data_offsets":[0,1],"dtype":"U8"},"b":%s}' % TENSOR.replace("0,0", "1,1"), ["a", "b"]),
    ('{"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
     ["a", "b"]),
])
def test_all_that_json_can_look_like(tmp_path, text, names):
    data = b"\0" * sum(end - begin for begin, end in (
        tensor["data_offsets"] for name, tensor in json.loads(text).items() if name != "__metadata__"))
    (tmp_path / "x").write_bytes(resealed(text.encode()) + data)
    with open(tmp_path / "x", "rb") as file:
        assert list(safetensors_format.read_header(file).tensors) == names


@pytest.mark.parametrize("text", [
    '{"a":%s,}' % TENSOR, '{,"a":%s}' % TENSOR, '{"a" %s}' % TENSOR, '{"a":%s "b":1}' % TENSOR, '{"a":%s}}' % TENSOR,
    "{}{}", '{"a":%s' % TENSOR, '{"a"', '{"a":', "{a:1}", "", '{"a":%s,"a":%s}' % (TENSOR, TENSOR),
    '{"__metadata__":{"a":"b"} "c":"d"}',
])
def test_what_is_no_json(tmp_path, text):
    (tmp_path / "x").write_bytes(resealed(text.encode()))
    with pytest.raises(ValueError, match="x: is no safetensors file, or damaged: its header is no JSON"):
        load(tmp_path / "x")


def test_our_metadata_in_another_order(tmp_path):
    """The version comes before what depends on it."""
    save(tmp_path / "x", {"w": np.zeros(3)})
    with open(tmp_path / "x", "rb") as file:
        header = safetensors_format.read_header(file)
    own = json.loads(header.metadata[model_file.KEY])
    specs = {name: (tensor.dtype, tensor.shape) for name, tensor in header.tensors.items()}
    for order, fits in [(["written_by", "version", "checksums", "entries"], True), (["entries", "version"], False)]:
        text = json.dumps({name: own[name] for name in order} | {name: own[name] for name in own if name not in order})
        raw = safetensors_format.lay_out(specs, {model_file.KEY: text, model_file.SEAL: "00000000"}).raw
        (tmp_path / "x").write_bytes(resealed(raw[8:]) + bytes(24))
        if fits:
            assert not load(tmp_path / "x")["w"].any()
        else:
            with pytest.raises(ValueError, match="version: got None"):
                load(tmp_path / "x")
