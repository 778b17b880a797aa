"""python -m qkernels quantize: options, what it prints, and what it refuses before it works."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import checkpoint_cases as cases
import numpy as np
import pytest

import qkernels
from qkernels import demo_linears, executors
from qkernels.__main__ import main
from qkernels.calibration import InputStatistics
from qkernels.mixed import Plan
from qkernels.sensitivity import OPTIONS

pytestmark = pytest.mark.any_isa


@pytest.fixture
def folder(tmp_path):
    cases.write(tmp_path / "m.safetensors", cases.tensors(layers=2))
    cases.write_shards(tmp_path / "shards", cases.tensors(layers=2))
    return tmp_path


def quantize(folder, *arguments, out="out.safetensors", model="m.safetensors"):
    """Run the command in this process; returns its exit code."""
    return main(["quantize", str(folder / model), str(folder / out), *map(str, arguments)])


def test_processes_and_files(folder, capsys):
    """The same bytes by one process and by two; the report; the plan, which gives the same bytes again."""
    report, plan = folder / "report.json", folder / "plan.json"
    assert quantize(folder, "--processes", 1, "--json", report, "--save-plan", plan) == 0
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder}/out.safetensors: 2 layers, 0.1 MB as float32, in 0.0 MB (") and "SQNR 21." in line
    assert quantize(folder, "--processes", 2, out="two.safetensors") == 0
    assert quantize(folder, "--plan", plan, "--no-sqnr", "--json", folder / "2.json", out="planned.safetensors") == 0
    one, two, planned = ((folder / f"{name}.safetensors").read_bytes() for name in ("out", "two", "planned"))
    assert one == two == planned
    cases.assert_quantized(folder / "out.safetensors", cases.tensors(layers=2),
                           {f"layers.{i}.weight": cases.INT4 for i in range(2)})
    figures, unmeasured = (json.loads((folder / name).read_text()) for name in ("report.json", "2.json"))
    assert figures["processes"] == 1 and [layer["sqnr"] for layer in unmeasured["layers"]] == [None, None]
    saved = Plan.load(plan)
    for layer in figures["layers"]:
        assert saved.layers[layer["name"]] == cases.INT4
        assert saved.measured[layer["name"]]["error"] == pytest.approx(10 ** (-layer["sqnr"] / 10))


def test_report_page(folder):
    assert quantize(folder, "--report", folder / "page.html") == 0
    text = re.sub("<[^>]*>", "", (folder / "page.html").read_text("utf-8"))  # names have places to break
    assert "layers.0.weight" in text and "norm.weight" in text


def test_calibration(folder):
    """By names with and without .weight; the bytes do not depend on the number of processes."""
    arrays, rng = cases.tensors(layers=2), np.random.default_rng(1)
    seen = {name: InputStatistics(160).observe(rng.normal(size=(200, 160)).astype(np.float32))
            for name in ("layers.0", "layers.1.weight")}
    qkernels.save(folder / "seen", seen)
    for count in (1, 2):
        assert quantize(folder, "--format", "int4", "--group", "64", "--symmetric", "--method", "gptq", "--calibration",
                        folder / "seen", "--processes", count, out=f"{count}.safetensors") == 0
    assert (folder / "1.safetensors").read_bytes() == (folder / "2.safetensors").read_bytes()
    model = qkernels.load(folder / "1.safetensors")
    for i, statistics in enumerate(seen.values()):
        w = arrays[f"layers.{i}.weight"]
        plain = qkernels.quantize_weight(w, "int4", group_size=64)
        error, of_plain = (np.trace((w - qw.dequantize()) @ statistics.hessian @ (w - qw.dequantize()).T)
                           for qw in (model[f"layers.{i}.weight"], plain))
        assert error < of_plain


def test_dry_run(folder, capsys):
    """The table, whose bytes are those of the weights' states and of what is kept; nothing is written."""
    before = sorted(os.listdir(folder))
    assert quantize(folder, "--dry-run", "--exclude", "*.1.*") == 0
    text = capsys.readouterr().out
    assert sorted(os.listdir(folder)) == before
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "96 x 160  int4, group_size 32, symmetric False" in lines["layers.0.weight"]
    assert "kept: excluded by *.1.*" in lines["layers.1.weight"] and "kept: 1-D" in lines["norm.weight"]
    assert "1 layer would be quantized, 6 tensors kept" in text
    assert quantize(folder, "--exclude", "*.1.*") == 0
    sizes = {name: value.nbytes for name, value in qkernels.load(folder / "out.safetensors").items()}
    assert all(lines[name].endswith(f" {size:,}") for name, size in sizes.items())
    assert f"would hold {sum(sizes.values()):,} bytes, padding apart" in text
    assert quantize(folder, "--dry-run", "--save-plan", folder / "plan.json", out="x", model="shards") == 0
    assert list(Plan.load(folder / "plan.json").layers) == ["layers.0.weight", "layers.1.weight"]
    assert not (folder / "x").exists()


def test_one_file_into_a_folder(folder):
    for _ in range(2):  # made, and replaced
        assert quantize(folder, out="made") == 0
        assert os.listdir(folder / "made") == ["m.safetensors"]
    assert quantize(folder) == 0
    assert (folder / "made" / "m.safetensors").read_bytes() == (folder / "out.safetensors").read_bytes()
    assert set(qkernels.load(folder / "made")) == set(qkernels.load(folder / "out.safetensors"))


def test_options_of_every_format(folder):
    """Unless told otherwise, a format is what the demo has it."""
    for name, scheme in demo_linears.DEFAULTS.items():
        assert quantize(folder, "--dry-run", "--format", name, "--save-plan", folder / "plan.json") == 0
        options = Plan.load(folder / "plan.json").layers["layers.0.weight"]
        assert {option: options.get(option, OPTIONS[option]) for option in scheme.options} == scheme.options


REFUSED = [
    (["--group", "48"], "argument --group: got '48', takes a multiple of 32, or 'none'"),
    (["--processes", "0"], "argument --processes: 0 is not positive"),
    (["--processes", "1", "--dask", "x"], "argument --dask: not allowed with argument --processes"),
    (["--format", "int5"], "argument --format: invalid choice"),
    (["--format", "nf4", "--asymmetric"], "options: symmetric: only applies to int8, int4, int2, not to 'nf4'"),
    (["--format", "int4", "--window", "12"], "options: window: only applies to trellis"),
    (["--format", "trellis2", "--method", "gptq"], "options: method: 'gptq' only applies to"),
    (["--method", "gptq"], "calibration: needed for method 'gptq'"),
    (["--method", "gptq", "--calibration", "{}/none"], "{}/none: No such file or directory"),
    (["--method", "gptq", "--calibration", "{}/seen"], "calibration: {}/seen lacks layers.1.weight"),
    (["--method", "gptq", "--calibration", "{}/narrow"], "takes statistics of some rows of 160 values"),
    (["--plan", "{}/plan.json", "--format", "int4"], "--plan decides about the layers; leave out --format"),
    (["--plan", "{}/plan.json", "--asymmetric"], "--plan decides about the layers; leave out --asymmetric"),
    (["--plan", "{}/plan.json"], "plan: layers.9: {}/m.safetensors has no such layer"),
    (["--plan", "{}/norm.json"], "plan: norm: cannot be quantized, it is 1-D"),
    (["--plan", "{}/seen"], "{}/seen: "),
    (["--json", "{}/no/x"], "{}/no/x: no such folder"),
    (["--dry-run", "--json", "{}/x"], "--dry-run measures nothing; leave out --report and --json"),
    (["--dask", "tcp://127.0.0.1:1"], "127.0.0.1:1"),
]


@pytest.mark.parametrize("arguments, message", REFUSED, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_refused_options(folder, capsys, monkeypatch, arguments, message):
    rng = np.random.default_rng(2)
    for name, layers, k in [("seen", ["layers.0"], 160), ("narrow", ["layers.0", "layers.1"], 150)]:
        qkernels.save(folder / name, {layer: InputStatistics(k).observe(rng.normal(size=(9, k)).astype(np.float32))
                                      for layer in layers})
    Plan({"layers.9": cases.INT4}).save(folder / "plan.json")
    Plan({"norm": cases.INT4}).save(folder / "norm.json")
    if "--dask" in arguments and len(arguments) == 2:
        pytest.importorskip("distributed")
        monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.5)
    before = sorted(os.listdir(folder))
    refused(folder, capsys, message, *(text.format(folder) for text in arguments))
    assert sorted(os.listdir(folder)) == before


def refused(folder, capsys, message, *arguments, **paths):
    try:
        code = quantize(folder, *arguments, **paths)
    except SystemExit as error:  # argparse
        code = error.code
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and message.format(folder) in lines[-1], lines
    assert len(lines) == 1 or "usage:" in lines[0]


@pytest.mark.parametrize("model, out, message", [
    ("none", "out.safetensors", "{}/none: No such file or directory"),
    ("m.safetensors", "text", "out: {}/text is a file whose name does not end in .safetensors"),
    ("m.safetensors", ".", "out: {}/m.safetensors is the source"),
    ("m.safetensors", "several", "out: {}/several holds another model, x.safetensors"),
    ("m.safetensors", "no/out.safetensors", "out: {}/no/out.safetensors lies in no folder"),
    ("m.safetensors", "m.safetensors", "out: {}/m.safetensors is the source"),
    ("m.safetensors", "link.safetensors", "out: {}/m.safetensors is the source"),
    ("m.safetensors", "folder.safetensors", "out: {}/folder.safetensors is a folder"),
    ("shards", "out.safetensors", "takes a folder, as {}/shards has several files"),
    ("shards", "m.safetensors", "takes a folder, as {}/shards has several files"),
    ("shards", "shards", "is the source"),
    ("shards", "a/b", "out: {}/a/b lies in no folder"),
    ("shards", "other", "out: {}/other holds another model, x.safetensors.index.json"),
    ("quantized.safetensors", "out.safetensors", "{}/quantized.safetensors: is quantized already"),
    ("text", "out.safetensors", "{}/text: is no safetensors file"),
    ("levels.safetensors", "out.safetensors", "{}/levels.safetensors: up.weight, up.weight.levels: up.weight.levels"),
])
def test_refused_paths(folder, capsys, model, out, message):
    (folder / "link.safetensors").symlink_to("m.safetensors")
    for name in ("folder.safetensors", "other"):
        (folder / name).mkdir()
    (folder / "other" / "x.safetensors.index.json").touch()
    (folder / "several").mkdir()
    (folder / "several" / "x.safetensors").touch()
    (folder / "text").write_text("some text")
    qkernels.save(folder / "quantized.safetensors", {"w": qkernels.quantize_weight(np.eye(32, dtype=np.float32))})
    w = np.eye(32, dtype=np.float32)
    cases.write(folder / "levels.safetensors", {"up.weight": w, "up.weight.levels": w})
    before = cases.files_in(folder)
    refused(folder, capsys, message, model=model, out=out)
    assert cases.files_in(folder) == before


@pytest.mark.parametrize("model, out", [("m.safetensors", "out.safetensors"), ("shards", "out")])
def test_no_space(folder, model, out):
    """Found before the work begins, and nothing stays behind."""
    before = cases.files_in(folder)
    process = cases.command("quantize", folder / model, folder / out, prepare=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (20000, 20000)))
    _, errors = cases.finished(process, 2)
    line, = errors.splitlines()
    assert f"{folder / out}: File too large (" in line
    assert cases.files_in(folder) == before and not (folder / out).exists()


def test_bounded_memory(tmp_path):
    """Each process peaks below four float32 copies of the largest layer and 200 MB, whatever the checkpoint's size."""
    rng = np.random.default_rng(0)
    n, k = 4096, 4096
    arrays = {f"layers.{i}.weight": rng.standard_normal((n, k), np.float32) for i in range(3)}
    model = cases.write(tmp_path / "m.safetensors", arrays)
    measured = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); " \
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    out = subprocess.run([sys.executable, "-c", measured, sys.executable, "-m", "qkernels", "quantize", model,
                          tmp_path / "out.safetensors"], cwd=cases.ROOT, check=True, capture_output=True, text=True)
    assert int(out.stdout.splitlines()[-1]) * 1024 < 4 * 4 * n * k + 200e6


def test_a_killed_process(folder):
    """One line, and the same command goes on."""
    shutil.rmtree(folder / "shards")
    model = cases.write_shards(folder / "shards", cases.tensors(layers=6, n=200, k=1000))
    process = cases.command("quantize", model, folder / "out", "--format", "trellis2", "--processes", 1)
    journal = folder / "out" / "model.safetensors.index.json.journal"
    cases.wait_for(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 2)
    os.kill(cases.workers(process)[0], signal.SIGKILL)
    _, errors = cases.finished(process, 2)
    assert errors.splitlines()[0].startswith("qkernels quantize: a process that worked on a layer was killed")
    assert errors.endswith("the same command goes on\n") and len(errors.splitlines()) == 1
    cases.finished(cases.command("quantize", model, folder / "out", "--format", "trellis2"))
    assert len(qkernels.load(folder / "out")) == len(cases.tensors(layers=6))
