"""quantize of checkpoints with bad layers: named together, kept on demand, and nothing is done twice."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import checkpoint_cases as cases
import numpy as np
import pytest
from test_quantize_resume import Stopped, quantized_layers, stop_at

import qkernels
from qkernels.__main__ import main
from qkernels.calibration import InputStatistics
from qkernels.mixed import Plan
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa
BAD = {"layers.1.weight": "w: contains NaN or infinity", "layers.2.weight": "w: contains NaN or infinity",
       "layers.4.weight": "w: contains NaN or infinity, as float32", "layers.5.weight": "scale_dtype: "}
GOOD = ["layers.0.weight", "layers.3.weight", "layers.6.weight"]


def with_bad_layers():
    """NaN, an infinity of float16, what float32 does not hold, and what float16 scales do not."""
    arrays = cases.tensors(layers=7)
    arrays["layers.1.weight"][3, 4] = np.nan
    arrays["layers.2.weight"] = arrays["layers.2.weight"].astype(np.float16)
    arrays["layers.2.weight"][0, 0] = -np.inf
    arrays["layers.4.weight"] = arrays["layers.4.weight"].astype(np.float64)
    arrays["layers.4.weight"][-1, -1] = 1e300
    arrays["layers.5.weight"][:] = 1e35
    return arrays


@pytest.fixture
def model(tmp_path):
    return cases.write(tmp_path / "m.safetensors", with_bad_layers())


def run(model, out, options=cases.INT4, **others):
    """The report, and the lines about an earlier run."""
    said = []
    with ThreadPoolExecutor(1) as threads:
        return quantize_checkpoint(model, out, options=options, executor=threads, say=said.append, **others), said


def refused(model, out, **others):
    with pytest.raises(ValueError) as error:
        run(model, out, **others)
    return str(error.value)


def test_all_are_named_when_all_others_are_done(tmp_path, model, monkeypatch):
    """And excluding them does nothing anew, and ends with the bytes that come without the first run."""
    out = tmp_path / "out.safetensors"
    run(model, tmp_path / "want.safetensors", exclude=list(BAD))
    text = refused(model, out)
    places = [text.index(f"{name}: {why}") for name, why in BAD.items()]
    assert places == sorted(places) and places[0] == 0 and "all else is done: --keep-bad" in text
    assert not any(name in text for name in GOOD) and not out.exists()
    names = quantized_layers(monkeypatch)
    assert refused(model, out) == text and sorted(names) == list(BAD)
    names.clear()
    report, said = run(model, out, exclude=list(BAD))
    assert names == [] and said == ["3 of 3 layers are done already: goes on"]
    assert out.read_bytes() == (tmp_path / "want.safetensors").read_bytes()
    assert [layer["name"] for layer in report["layers"]] == GOOD
    assert all(layer["sqnr"] > 20 and layer["seconds"] > 0 for layer in report["layers"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "out.safetensors", "want.safetensors"]


@pytest.mark.parametrize("after", [False, True])
def test_keep_bad(tmp_path, model, monkeypatch, after):
    """Also after a run that has ended with the error."""
    out = tmp_path / "out.safetensors"
    run(model, tmp_path / "want.safetensors", exclude=list(BAD))
    if after:
        refused(model, out)
    names = quantized_layers(monkeypatch)
    with pytest.warns(UserWarning, match="is kept as it is, it cannot be quantized: ") as caught:
        report, _ = run(model, out, keep_bad=True)
    assert [str(warning.message).split()[0] for warning in caught] == list(BAD)
    assert len(names) == (0 if after else 7)
    assert out.read_bytes() == (tmp_path / "want.safetensors").read_bytes()
    whys = {kept["name"]: kept["why"] for kept in report["kept"] if kept["name"] in BAD}
    assert list(whys) == list(BAD) and all(why.startswith("cannot be quantized: ") for why in whys.values())
    assert np.isnan(qkernels.load(out)["layers.1.weight"]).sum() == 1


def test_nothing_else_is_left(tmp_path, recwarn):
    """All layers are bad; none is."""
    w = np.full((32, 64), np.nan, np.float32)
    model = cases.write(tmp_path / "m.safetensors", {"a.weight": w, "b.weight": w})
    report, _ = run(model, tmp_path / "out.safetensors", keep_bad=True)
    assert not report["layers"] and len(recwarn.list) == 2
    recwarn.clear()
    model = cases.write(tmp_path / "m.safetensors", cases.tensors(layers=2))
    report, _ = run(model, tmp_path / "out.safetensors", keep_bad=True)
    assert len(report["layers"]) == 2 and not recwarn.list


@pytest.mark.filterwarnings("ignore:.* is kept as it is")
@pytest.mark.parametrize("how", [{"exclude": list(BAD)}, {"keep_bad": True}])
def test_interrupted_while_layers_are_taken_over(tmp_path, monkeypatch, how):
    """At every step: the files of both jobs are there, or those of one."""
    source = cases.write_shards(tmp_path / "m", with_bad_layers())
    run(source, tmp_path / "want", exclude=list(BAD))
    want = cases.files_in(tmp_path / "want")
    refused(source, tmp_path / "begun")
    for step in range(1, 40):
        out, stopped = tmp_path / "out", False
        shutil.copytree(tmp_path / "begun", out)
        with monkeypatch.context() as patch:
            stop_at(patch, os, "fsync", step)
            try:
                run(source, out, **how)
            except Stopped:
                stopped = True
        has_journal = (out / "model.safetensors.index.json.journal").exists()
        with monkeypatch.context() as patch:
            names = quantized_layers(patch)
            run(source, out, **how)
        assert cases.files_in(out) == want, step
        assert not names or not has_journal, step  # not even the bad ones
        shutil.rmtree(out)
        if not stopped:
            break
    assert 8 < step < 39


def test_only_what_is_the_same_is_taken_over(tmp_path, monkeypatch):
    """Not a layer of other options, nor one whose bytes or whose line in the journal are damaged."""
    model, out, plan = tmp_path / "m.safetensors", tmp_path / "out.safetensors", tmp_path / "journal"
    arrays = cases.tensors(layers=6)
    cases.write(model, arrays | {"layers.5.weight": np.full((101, 160), np.inf, np.float32)})
    refused(model, out)
    journal, (partial,) = tmp_path / "out.safetensors.journal", tmp_path.glob("*.partial")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    of = {line["layer"]: line for line in lines if "layer" in line}
    with open(partial, "r+b") as file:
        file.seek(of["layers.1.weight"]["at"][""] + 100)
        file.write(bytes(64))
    of["layers.2.weight"]["at"] = {"": 2**61}
    of["layers.3.weight"]["key"] = "0" * 16
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {name: cases.INT4 for name in of if name != "layers.5.weight"} | {"layers.4.weight": {"format": "int8"}}
    names = quantized_layers(monkeypatch)
    _, said = run(model, out, None, plan=Plan(options))
    assert said == ["1 of 5 layers are done already: goes on"]
    assert sorted(names) == [f"layers.{i}.weight" for i in (1, 2, 3, 4)]
    arrays["layers.5.weight"] = np.full((101, 160), np.inf, np.float32)
    cases.assert_quantized(out, arrays, options)
    assert not plan.exists() and not list(tmp_path.glob("*.partial")) and not journal.exists()


def test_a_weight_of_a_stack(tmp_path):
    w = np.random.default_rng(0).normal(size=(5, 32, 64)).astype(np.float32)
    w[3, 7, 9], w[1, 0, 0] = np.inf, np.nan
    model = cases.write(tmp_path / "m.safetensors", {"mlp.experts.up": w, "mlp.experts.down": w[:1]})
    text = refused(model, tmp_path / "out.safetensors")
    assert text.startswith("mlp.experts.up: weight 1: w: contains NaN or infinity; mlp.experts.up: weight 3: w: ")
    with pytest.warns(UserWarning, match="mlp.experts.up is kept as it is, .* weight 1: w: .*; weight 3: w: "):
        run(model, tmp_path / "out.safetensors", keep_bad=True)
    made = qkernels.load(tmp_path / "out.safetensors")
    assert made["mlp.experts.up"].tobytes() == w.tobytes() and made["mlp.experts.down"].shape == (1, 32, 64)


def test_bad_statistics(tmp_path):
    """Of NaN, which a file can say: named with the others."""
    arrays = {name: np.random.default_rng(0).normal(size=(32, 64)).astype(np.float32) for name in "abcd"}
    seen = {name: InputStatistics(64).observe(w) for name, w in arrays.items()}
    model = cases.write(tmp_path / "m.safetensors", {f"{name}.weight": w for name, w in arrays.items()})
    qkernels.save(tmp_path / "seen", seen)
    raw = bytearray((tmp_path / "seen").read_bytes())
    for name in "bd":
        raw[qkernels.load(tmp_path / "seen").place(name).tensors[f"{name}.products"].start] ^= 1
    (tmp_path / "seen").write_bytes(raw)
    gptq = {"options": {"format": "int4", "group_size": 32, "method": "gptq"}, "calibration": tmp_path / "seen"}
    text = refused(model, tmp_path / "out.safetensors", **gptq)
    assert "b.weight: " in text and "seen: b.products: is damaged" in text and "seen: d.products: is damaged" in text


def test_by_the_command(tmp_path, model, capsys):
    command = ["quantize", str(model), str(tmp_path / "out.safetensors"), "--processes", "1"]
    assert main(command) == 2
    line, = capsys.readouterr().err.splitlines()
    assert all(f"{name}: " in line for name in BAD)
    assert main([*command, "--keep-bad", "--json", str(tmp_path / "report.json")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(BAD) + 1 and all(name in line for name, line in zip(BAD, lines, strict=False))
    assert len(json.loads((tmp_path / "report.json").read_text())["layers"]) == 3
