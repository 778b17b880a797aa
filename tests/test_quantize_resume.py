"""python -m qkernels quantize, interrupted: the same command goes on and ends with the same bytes."""

import fcntl
import json
import os
from concurrent.futures import ThreadPoolExecutor

import checkpoint_cases as cases
import numpy as np
import pytest

from qkernels import quantize_layer, whole_models
from qkernels.journal import Busy
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa


class Stopped(BaseException):
    """An end in the middle of a call that nothing handles as an error."""


def stop_at(monkeypatch, owner, name, calls):
    """Have the so-manieth call of a function raise Stopped instead."""
    original, seen = getattr(owner, name), []

    def counted(*arguments, **others):
        seen.append(name)
        if len(seen) == calls:
            raise Stopped
        return original(*arguments, **others)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize("name", ["fsync", "replace", "unlink"])
def test_stopped_at_every_step(tmp_path, monkeypatch, name):
    """Before each call that makes something last: of data, of the journal, of headers, of names."""
    model = cases.write_shards(tmp_path / "m", cases.tensors(layers=3))
    with ThreadPoolExecutor(1) as threads:
        quantize_checkpoint(model, tmp_path / "expected", options=cases.INT4, executor=threads)
        expected = cases.files_in(tmp_path / "expected")
        incomplete = 0
        for step in range(1, 40):
            out = tmp_path / f"out{step}"
            with monkeypatch.context() as patch:
                stop_at(patch, os, name, step)
                try:
                    quantize_checkpoint(model, out, options=cases.INT4, executor=threads)
                    break
                except Stopped:
                    pass
            incomplete += cases.files_in(out) != expected
            quantize_checkpoint(model, out, options=cases.INT4, executor=threads)
            assert cases.files_in(out) == expected, step
    assert cases.files_in(out) == expected
    assert incomplete >= {"fsync": 10, "replace": 4, "unlink": 1}[name]


def interrupted(tmp_path, monkeypatch, layers, **others):
    """A job that was stopped after so many layers; returns how to go on with it."""
    arrays = cases.tensors(layers=5)
    model = cases.write(tmp_path / "m.safetensors", arrays)
    lines = []

    def again(model=model, options=cases.INT4, executor=None, layout=None):
        with ThreadPoolExecutor(1) as threads:
            return quantize_checkpoint(model, tmp_path / "out.safetensors", options=options, say=lines.append,
                                       executor=executor or threads, layout=layout)

    done = []

    def counted(layer):
        if len(done) == layers:
            raise Stopped
        done.append(layer.name)
        return quantize_layer.quantize_layer(layer)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(whole_models, "quantize_layer", counted)
        again()
    return again, lines, arrays


def quantized_layers(monkeypatch):
    names = []

    def noted(layer):
        names.append(layer.name)
        return quantize_layer.quantize_layer(layer)

    monkeypatch.setattr(whole_models, "quantize_layer", noted)
    return names


def test_layers_that_are_done_are_kept(tmp_path, monkeypatch):
    again, lines, arrays = interrupted(tmp_path, monkeypatch, 3)
    names = quantized_layers(monkeypatch)
    report = again()
    assert lines == ["3 of 5 layers are done already: goes on"] and len(names) == 2
    assert len(report["layers"]) == 5 and all(layer["seconds"] and layer["sqnr"] for layer in report["layers"])
    cases.assert_quantized(tmp_path / "out.safetensors", arrays, {f"layers.{i}.weight": cases.INT4 for i in range(5)})


def test_damaged_partial_and_torn_journal(tmp_path, monkeypatch):
    """A layer whose bytes are not those of its checksum is done again; a torn line counts for nothing."""
    again, lines, arrays = interrupted(tmp_path, monkeypatch, 3)
    partial, = tmp_path.glob("*.partial")
    journal = tmp_path / "out.safetensors.journal"
    first = json.loads(journal.read_text().splitlines()[1])["layer"]
    with open(partial, "r+b") as file:
        file.write(bytes(partial.stat().st_size))
    text = journal.read_text()
    journal.write_text(text + text.splitlines()[1][:20])
    names = quantized_layers(monkeypatch)
    again()
    assert lines == ["0 of 5 layers are done already: goes on"] and first in names and len(names) == 5
    cases.assert_quantized(tmp_path / "out.safetensors", arrays, {f"layers.{i}.weight": cases.INT4 for i in range(5)})


@pytest.mark.parametrize("change", ["options", "source"])
def test_another_job_begins_anew(tmp_path, monkeypatch, change):
    again, lines, arrays = interrupted(tmp_path, monkeypatch, 3)
    options = cases.INT4
    if change == "options":
        options = {"format": "int8"}
    else:
        arrays["layers.0.weight"] += np.float32(1)
        cases.write(tmp_path / "m.safetensors", arrays)
    again(options=options)
    line, = lines
    assert "begins anew" in line
    cases.assert_quantized(tmp_path / "out.safetensors", arrays, {f"layers.{i}.weight": options for i in range(5)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "out.safetensors"]


def test_a_source_that_changes_in_the_meantime(tmp_path, monkeypatch):
    arrays = cases.tensors()
    model = cases.write(tmp_path / "m.safetensors", arrays)

    def changing(layer):
        os.utime(model, ns=(1, 1))
        return quantize_layer.quantize_layer(layer)

    monkeypatch.setattr(whole_models, "quantize_layer", changing)
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="m.safetensors: was changed"):
        quantize_checkpoint(model, tmp_path / "out.safetensors", options=cases.INT4, executor=threads)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_bad_layer_does_not_lose_the_others(tmp_path):
    """Each call names it; those that were done before, the larger ones among them, are kept."""
    arrays = cases.tensors(layers=5)
    arrays["layers.2.weight"][3, 5] = np.inf
    model, lines = cases.write(tmp_path / "m.safetensors", arrays), []
    for _ in range(2):
        with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="^layers.2.weight: w: contains NaN"):
            quantize_checkpoint(model, tmp_path / "out.safetensors", options=cases.INT4, executor=threads,
                                say=lines.append)
    line, = lines
    assert line.endswith(" of 5 layers are done already: goes on") and int(line[0]) in (2, 3, 4)
    assert not (tmp_path / "out.safetensors").exists()


def test_two_at_the_same_time(tmp_path):
    model = cases.write(tmp_path / "m.safetensors", cases.tensors())
    out = tmp_path / "out.safetensors"
    with open(tmp_path / "out.safetensors.journal", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with ThreadPoolExecutor(1) as threads, pytest.raises(Busy, match="another process is at work"):
            quantize_checkpoint(model, out, options=cases.INT4, executor=threads)
        _, errors = cases.finished(cases.command("quantize", model, out), 2)
        assert errors == f"qkernels quantize: {out}.journal: another process is at work on the same output\n"
    cases.finished(cases.command("quantize", model, out))
