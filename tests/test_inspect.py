"""python -m qkernels inspect: what is inside a file, as a table and as JSON."""

import json

import checkpoint_cases as cases
import file_cases
import numpy as np
import pytest

import qkernels
from qkernels import _core, entries
from qkernels.__main__ import main

pytestmark = pytest.mark.any_isa


def inspect(*arguments):
    return main(["inspect", *map(str, arguments)])


def test_every_kind(tmp_path, capsys):
    model = file_cases.every_kind()
    path = tmp_path / "model"
    qkernels.save(path, model, metadata={"made by": "hand"})
    assert inspect(path, "--json", "--verify") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metadata"] == {"made by": "hand"} and found["bytes"] == path.stat().st_size
    by_name = {entry["name"]: entry for entry in found["entries"]}
    assert list(by_name) == list(model)
    what = {name: entry["what"] for name, entry in by_name.items()}
    assert what["int8"] == "int8, group_size 32, symmetric False" and what["seen"] == "statistics of 9 rows"
    assert what["int4.scaled"] == "int4, group_size 32, method awq" and what["int2.rotated"] == "int2, rotate True"
    assert what["fine"] == "trellis2, window 12" and what["b"] == "packed_b" and what["bias"] == "F32"
    for name, value in model.items():
        entry = by_name[name]
        if isinstance(value, qkernels.QuantizedWeight):
            levels = value.levels.nbytes if value.format == "codebook4" else 0
            input_scales = 0 if value.input_scales is None else value.input_scales.nbytes
            assert entry["bytes"] == value.packed_nbytes + levels + input_scales
            assert entry["shape"] == list(value.shape) and entry["bits"] == value.bits_per_weight
            assert entry["layout"] == entries.layout_id(_core.weight_layout()) and entry["mapped"]
        elif isinstance(value, np.ndarray):
            assert entry["bytes"] == value.nbytes and entry["layout"] is None and entry["mapped"] is None
    assert inspect(path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(model)} entries, {path.stat().st_size:,} bytes" and lines[-2] == "made by: hand"
    assert any(line.startswith("int2.rotated") and line.endswith("used as it lies") for line in lines)
    assert any(line.startswith("näme 😀\\n ") for line in lines)  # no line break, nor what a terminal obeys


def test_another_layout(tmp_path, capsys):
    isa, other = next(item for item in _core.weight_layouts().items() if item[1] != _core.weight_layout())
    path = cases.write(tmp_path / "m.safetensors", cases.tensors(layers=1))
    assert main(["quantize", str(path), str(tmp_path / "out.safetensors"), "--for", isa]) == 0
    assert inspect(tmp_path / "out.safetensors") == 0
    text = capsys.readouterr().out
    assert f"{entries.layout_id(other)} ({isa}), packed anew here" in text
    cases.assert_quantized(tmp_path / "out.safetensors", cases.tensors(layers=1), {"layers.0.weight": cases.INT4})


def test_empty_and_sharded(tmp_path, capsys):
    qkernels.save(tmp_path / "empty", {})
    assert inspect(tmp_path / "empty", "--verify") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("bytes, undamaged")
    source = cases.write_shards(tmp_path / "m", cases.tensors(layers=3))
    assert main(["quantize", str(source), str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert inspect(tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert inspect(tmp_path / "out" / "model.safetensors.index.json") == 0
    assert capsys.readouterr().out == out and "9 entries" in out


def test_bad_files(tmp_path, capsys):
    path = cases.write(tmp_path / "plain.safetensors", cases.tensors())
    for bad, message in [(path, "python -m qkernels quantize makes one of it"), (tmp_path / "none", "No such file"),
                         (tmp_path / "folder", "has no *.safetensors file")]:
        (tmp_path / "folder").mkdir(exist_ok=True)
        assert inspect(bad) == 2
        line, = capsys.readouterr().err.splitlines()
        assert line.startswith(f"qkernels inspect: {bad}: ") and message in line


@pytest.mark.parametrize("key, value", [("scale_dtype", "float7"), ("format", "int3"), ("group_size", 0)])
def test_what_no_weight_is(tmp_path, capsys, key, value):
    """In a header whose checksum is right."""
    path = tmp_path / "m"
    qkernels.save(path, {"w": qkernels.quantize_weight(np.eye(64, dtype=np.float32), group_size=32)})
    header, start = file_cases.header_of(path.read_bytes())
    own = file_cases.own_of(header)
    own["entries"]["w"][key] = value
    path.write_bytes(file_cases.sealed(header, path.read_bytes()[start:], own))
    assert inspect(path) == 2
    assert f"m: w: {key}: got {value!r}" in capsys.readouterr().err


def test_verify_finds_damage(tmp_path, capsys):
    path = tmp_path / "m"
    qkernels.save(path, {"w": qkernels.quantize_weight(np.eye(64, dtype=np.float32)), "b": np.ones(3)})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert inspect(path) == 0
    capsys.readouterr()
    assert inspect(path, "--verify") == 2
    assert "m: b: is damaged at bytes 0 to 24" in capsys.readouterr().err
