"""python -m qkernels quantize writes over nothing that it reads, and nothing twice: found before any work."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import checkpoint_cases as cases
import numpy as np
import pytest

import qkernels
from qkernels.__main__ import main
from qkernels.calibration import InputStatistics
from qkernels.conversion import Conversion
from qkernels.mixed import Plan
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa
GPTQ = {**cases.INT4, "method": "gptq"}


@pytest.fixture
def folder(tmp_path):
    """One file and a sharded checkpoint, statistics of their layers, a plan, links to some of them and to nothing."""
    arrays, rng = cases.tensors(layers=2), np.random.default_rng(1)
    cases.write(tmp_path / "m.safetensors", arrays)
    cases.write_shards(tmp_path / "shards", arrays)
    qkernels.save(tmp_path / "seen.safetensors", {
        f"layers.{i}": InputStatistics(160).observe(rng.normal(size=(200, 160)).astype(np.float32)) for i in range(2)})
    Plan({f"layers.{i}": GPTQ for i in range(2)}).save(tmp_path / "plan.json")
    cases.write(tmp_path / "out.safetensors", {"earlier": np.zeros(3)})
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("m.safetensors", "seen.safetensors", "plan.json", "shards/model-00002-of-00003.safetensors"):
        os.link(tmp_path / name, tmp_path / f"hard-{os.path.basename(name)}")
        (tmp_path / f"soft-{os.path.basename(name)}").symlink_to(name)
    (tmp_path / "soft-new").symlink_to("new.safetensors")
    return tmp_path


def assert_refused(folder, capsys, message, model, out, *arguments):
    before = cases.files_in(folder), sorted(folder.rglob("*"))
    code = main(["quantize", str(folder / model), str(folder / out), *(text.format(folder) for text in arguments)])
    line, = capsys.readouterr().err.splitlines()
    assert code == 2 and message.format(folder) in line, line
    assert (cases.files_in(folder), sorted(folder.rglob("*"))) == before


CALIBRATED = ("--plan", "{}/plan.json", "--calibration", "{}/seen.safetensors")


@pytest.mark.parametrize("option", ["--report", "--json", "--save-plan"])
@pytest.mark.parametrize("name, what", [
    ("m.safetensors", "the source"), ("soft-m.safetensors", "the source"), ("hard-m.safetensors", "the source"),
    ("folder/m.safetensors", "the source"), ("seen.safetensors", "the calibration file"),
    ("hard-seen.safetensors", "the calibration file"), ("soft-seen.safetensors", "the calibration file"),
    ("plan.json", "the plan"), ("soft-plan.json", "the plan"), ("hard-plan.json", "the plan"),
    ("out.safetensors", "where out is written"), ("folder/out.safetensors", "where out is written"),
    ("out.safetensors.journal", "where the journal is written"),
])
def test_results_over_other_files(folder, capsys, option, name, what):
    others = [] if option == "--save-plan" else ["--processes", "1"]
    assert_refused(folder, capsys, f"{option}: {{}}/{name} is {what}", "m.safetensors", "out.safetensors", *CALIBRATED,
                   option, f"{{}}/{name}", *others)
    if option == "--save-plan":
        assert_refused(folder, capsys, what, "m.safetensors", "out.safetensors", *CALIBRATED, option, f"{{}}/{name}",
                       "--dry-run")


@pytest.mark.parametrize("arguments, message", [
    (["--report", "{}/x", "--json", "{}/x"], "--json: {}/x is where --report is written"),
    (["--json", "{}/x", "--save-plan", "{}/folder/x"], "--save-plan: {}/folder/x is where --json is written"),
    (["--report", "{}/soft-new", "--json", "{}/new.safetensors"], "is where --report is written"),
    (["--json", "{}/quantized"], "--json: {}/quantized is the folder of out"),
    (["--json", "{}/quantized/x"], "no such folder"),
    (["--json", "{}/shards/model-00002-of-00003.safetensors"], "is the source"),
    (["--json", "{}/hard-model-00002-of-00003.safetensors"], "is the source"),
    (["--json", "{}/shards/model.safetensors.index.json"], "is the index of the source"),
])
def test_results_of_shards(folder, capsys, arguments, message):
    assert_refused(folder, capsys, message, "shards", "quantized", "--processes", "1", *arguments)


@pytest.mark.parametrize("out, what", [
    ("seen.safetensors", "the calibration file"), ("soft-seen.safetensors", "the calibration file"),
    ("hard-seen.safetensors", "the calibration file"), ("hard-m.safetensors", "the source"),
])
def test_output_over_an_input(folder, capsys, out, what):
    assert_refused(folder, capsys, f"is {what}", "m.safetensors", out, *CALIBRATED)
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match=f"^out: .* is {what}"):
        quantize_checkpoint(folder / "m.safetensors", folder / out, plan=Plan.load(folder / "plan.json"),
                            calibration=folder / "seen.safetensors", executor=threads)


def test_calibration_in_a_folder(folder, capsys):
    (folder / "statistics").mkdir()
    (folder / "seen.safetensors").rename(folder / "statistics" / "seen.safetensors")
    for option, path in [("--json", "statistics/seen.safetensors"), ("--report", "hard-seen.safetensors")]:
        assert_refused(folder, capsys, "is the calibration file", "m.safetensors", "new.safetensors", *CALIBRATED[:3],
                       "{}/statistics", option, f"{{}}/{path}")
    assert_refused(folder, capsys, "is the calibration file", "m.safetensors", "statistics/seen.safetensors",
                   *CALIBRATED[:3], "{}/statistics")


def test_files_of_the_job_itself(folder, capsys):
    """The partial files and the journal, too, are written to."""
    conversion = Conversion(folder / "m.safetensors", folder / "new.safetensors", cases.INT4, None, None, (), None)
    partial, = conversion.partial_paths(conversion.fingerprint()).values()
    assert_refused(folder, capsys, "is where a partial file is written", "m.safetensors", "new.safetensors", "--json",
                   str(partial))
    (folder / "seen.safetensors").rename(folder / "new.safetensors.journal")
    assert_refused(folder, capsys, "the journal: {}/new.safetensors.journal is the calibration file", "m.safetensors",
                   "new.safetensors", *CALIBRATED[:3], "{}/new.safetensors.journal")


def test_places_that_are_no_files(folder, capsys):
    """What cannot be replaced in the end is refused in the beginning."""
    (folder / "quantized" / "model-00001-of-00003.safetensors").mkdir(parents=True)
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "loop").symlink_to("loop")
    assert_refused(folder, capsys, "model-00001-of-00003.safetensors is no regular file", "shards", "quantized")
    assert_refused(folder, capsys, "out: {}/pipe.safetensors is no regular file", "m.safetensors", "pipe.safetensors")
    assert_refused(folder, capsys, "{}/loop: not a regular file", "m.safetensors", "new", "--json", "{}/loop")
    assert_refused(folder, capsys, "loop", "loop", "new.safetensors")
    assert_refused(folder, capsys, "loop", "m.safetensors", "loop")


def test_shards_that_would_become_one(folder, capsys):
    shards = folder / "two"
    shards.mkdir()
    for file, name in [("a", "x.weight"), ("a.safetensors", "y.weight")]:
        cases.write(shards / file, {name: np.eye(32, 64, dtype=np.float32)})
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {
        "x.weight": "a", "y.weight": "a.safetensors"}}))
    assert_refused(folder, capsys, "{}/two: shards a and a.safetensors would both become a.safetensors", "two", "new")


@pytest.mark.parametrize("name", ["../m.safetensors", "x/../a", "/etc/passwd", "", ".", "..", "a\\b", "a\0b", 3, None,
                                  ["a"], "\ud800", "\udcff"])
def test_names_of_shards_that_lead_elsewhere(folder, capsys, name):
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x.weight": name}}))
    assert_refused(folder, capsys, "weight_map: takes a file name, without a folder", "shards", "new")
