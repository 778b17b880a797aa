"""Files for another machine: what its own process would write, and what each option and function makes of them."""

import json
import os
import re

import checkpoint_cases as cases
import numpy as np
import pytest
from conftest import ISAS
from file_cases import assert_same_value, every_kind
from test_quantize_resume import interrupted

import qkernels
from qkernels import _core, entries
from qkernels.__main__ import main
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa
ALL = list(_core.weight_layouts())


def figures(path):
    """Of a report, without the times."""
    return re.sub(r'"seconds": [0-9.e-]+', "", path.read_text())


def test_each_isa(tmp_path, capsys, select_isa):
    """A process writes what is written for its ISA elsewhere; the table is the same under each, and with --for all is."""
    model = cases.write(tmp_path / "m.safetensors", cases.tensors(layers=2))
    out, report, tables, named = tmp_path / "out.safetensors", tmp_path / "report.json", set(), set()
    for isa in ISAS:
        select_isa(ISAS[-1])
        assert main(["quantize", str(model), str(tmp_path / "for.safetensors"), "--for", isa, "--processes", "1"]) == 0
        cases.finished(cases.command("quantize", model, out, "--processes", 1, env=os.environ | {"QKERNELS_ISA": isa}))
        assert out.read_bytes() == (tmp_path / "for.safetensors").read_bytes()
        select_isa(isa)
        capsys.readouterr()
        assert main(["quantize", str(model), str(out), "--dry-run"]) == 0
        tables.add(capsys.readouterr().out)
        assert main(["quantize", str(model), str(out), "--for", "neon", "--processes", "1", "--json", str(report)]) == 0
        named.add((out.read_bytes(), figures(report)))
    assert len(tables) == len(named) == 1


def test_dry_run_shows_the_files(tmp_path, capsys):
    model, out = cases.write(tmp_path / "m.safetensors", cases.tensors(layers=1)), tmp_path / "out.safetensors"
    for isa in ("avx512vnni", "neon"):
        assert main(["quantize", str(model), str(out), "--for", isa, "--dry-run"]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert main(["quantize", str(model), str(out), "--for", isa]) == 0
        assert line == f"packed for {isa}, {out.stat().st_size:,} bytes of files"
        assert capsys.readouterr()


@pytest.mark.parametrize("writer", ALL)
def test_every_kind_comes_back(tmp_path, capsys, writer):
    """Here, too; `inspect` says for which ISA a file is, and `rows` has no layout."""
    model = every_kind()
    qkernels.save(tmp_path / "model", model, layout=writer)
    again = qkernels.load(tmp_path / "model")
    for name, value in model.items():
        assert_same_value(again[name], value, name)
    np.testing.assert_array_equal(again.rows("wide", [39, 0, 3]), model["wide"][[39, 0, 3]])
    for name, description in again.descriptions.items():
        layouts = _core.b_layouts() if description["kind"] == "packed_b" else _core.weight_layouts()
        assert description.get("isa", writer) == writer, name
        assert description.get("layout", entries.layout_id(layouts[writer])) == entries.layout_id(layouts[writer]), name
    assert main(["inspect", str(tmp_path / "model"), "--json", "--verify"]) == 0
    for entry in json.loads(capsys.readouterr().out)["entries"]:
        assert entry["isa"] in (None, writer)
    qkernels.save(tmp_path / "own", again)
    qkernels.save(tmp_path / "want", model)
    assert (tmp_path / "own").read_bytes() == (tmp_path / "want").read_bytes()


def test_another_isa_is_another_job(tmp_path, monkeypatch):
    again, lines, arrays = interrupted(tmp_path, monkeypatch, 3)
    other = next(isa for isa in ALL if _core.weight_layouts()[isa] != _core.weight_layout())
    again(layout=other)
    assert "begins anew" in lines[0]
    lines.clear()
    again(layout=other)
    assert not lines
    cases.assert_quantized(tmp_path / "out.safetensors", arrays, {f"layers.{i}.weight": cases.INT4 for i in range(5)})


@pytest.mark.parametrize("bad", ["avx3", "", "AVX2", 3, ["avx2"], {}])
def test_names_of_no_isa(tmp_path, bad):
    model = cases.write(tmp_path / "m.safetensors", cases.tensors(layers=1))
    before = os.listdir(tmp_path)
    for call in (lambda: qkernels.save(tmp_path / "out", {}, layout=bad),
                 lambda: quantize_checkpoint(model, tmp_path / "out.safetensors", options=cases.INT4, layout=bad)):
        with pytest.raises(ValueError, match=r"^layout: got .*, takes one of scalar, avx2, .*neon_i8mm$"):
            call()
    assert os.listdir(tmp_path) == before


def test_the_command_names_the_isas(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["quantize", str(tmp_path / "m"), str(tmp_path / "out"), "--for", "armv9"])
    text = capsys.readouterr().err
    assert "argument --for: invalid choice: 'armv9'" in text and "avx512vbmi" in text and "neon_i8mm" in text
