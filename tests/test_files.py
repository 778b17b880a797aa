"""Result files of the command line are complete or untouched."""

import json
import os

import pytest

from qkernels import _files

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
