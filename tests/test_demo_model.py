"""`python -m qkernels demo` with the real model: runs where QKERNELS_TEST_DEMO=1."""

import json
import os
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest

import qkernels
from qkernels import demo, demo_plan
from qkernels.__main__ import main
from qkernels.demo_linears import COMPARED, Float32Linear, Scheme
from qkernels.minilm import Encoder, load_model, tokenize
from qkernels.mixed import Plan

pytestmark = pytest.mark.skipif(
    os.environ.get("QKERNELS_TEST_DEMO") != "1", reason="QKERNELS_TEST_DEMO=1 asks for it"
)
DEMO = [sys.executable, "-m", "qkernels", "demo"]

SENTENCES = (
    "A man is eating food.",
    "Someone eats a meal, naïvely!",
    "The number theory exam is tomorrow. " * 60,  # cut at 256 tokens
)
# The first components that sentence-transformers 6.2 (torch 2.13) gives.
EMBEDDINGS = [
    [0.033242, 0.004406, -0.006277, 0.048379, -0.138702, -0.033617],
    [0.021665, 0.028242, 0.002898, 0.039314, -0.086986, -0.070789],
    [0.01762, 0.030425, -0.0105, -0.015748, 0.017165, 0.09432],
]


def test_embeddings_equal_sentence_transformers():
    folder = demo.find_model()
    encoder = Encoder(*load_model(folder), Float32Linear)
    ids = tokenize(folder, SENTENCES)
    assert max(map(len, ids)) == 256
    np.testing.assert_allclose(encoder(ids)[:, :6], EMBEDDINGS, atol=3e-6)


def test_demo_meets_its_bars_in_a_pipe(tmp_path):
    path = tmp_path / "figures.json"
    command = [*DEMO, "--query", "How do I catch an exception?", "--top", "3", "--repeat", "1"]
    done = subprocess.run([*command, "--json", path], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar
    figures = json.loads(path.read_text("utf-8"))
    assert figures["sentences"] == 200 and figures["linear_layers"] == 36
    assert figures["cosine_mean"] >= 0.995
    assert figures["nearest_neighbor_agreement"] >= 0.94
    assert figures["int8"]["weight_bytes"] < figures["float32"]["weight_bytes"] / 3.8
    assert len(figures["most_similar"]) == 3
    assert "exception" in figures["most_similar"][0]["sentence"].lower()
    for text in (figures["isa"], *(hit["sentence"] for hit in figures["most_similar"])):
        assert text in done.stdout


# Of what --compare shows, the rows with bars of their own.
WITH_BARS = tuple(
    scheme for scheme in COMPARED
    if scheme.weights == "int8" or (scheme.weights == "int4" and scheme.method in ("rtn", "gptq"))
    or (scheme.weights in ("trellis2", "trellis4") and scheme.method == "ldlq"))


def test_comparison_meets_its_bars(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "COMPARED", WITH_BARS)
    path = tmp_path / "figures.json"
    assert main(["demo", "--compare", "--repeat", "1", "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    figures = json.loads(path.read_text("utf-8"))
    rows = {Scheme(**row["scheme"]): row for row in figures["compared"]}
    assert tuple(rows) == WITH_BARS
    for scheme, row in rows.items():
        bits = qkernels.formats.find(scheme.weights).bits
        parameters = 0 if scheme.group_size is None else (16 if scheme.symmetric else 16 + bits) / scheme.group_size
        assert 0 <= row["bits_per_weight"] - bits - parameters < 0.35
        assert row["cosine_worst"] < row["cosine_mean"]
        assert f"{row['cosine_mean']:.4f}" in out

    def close(*scheme, **options):
        row = rows[Scheme(*scheme, **options)]
        return row["cosine_mean"], row["nearest_neighbor_agreement"]

    def reaches(found, cosine, neighbors):
        return found[0] >= cosine and found[1] >= neighbors

    assert reaches(close("int8", None, True), 0.997, 0.95)
    assert reaches(close("int8", None, True, static=True), 0.98, 0.90)
    assert close("int8", None, True, "float32")[0] >= 0.999
    for activations in ("int8", "float32"):
        assert close("int4", 32, False, activations)[0] >= 0.965
    gptq = close("int4", 32, False, method="gptq")
    assert reaches(gptq, 0.990, 0.86)
    assert reaches(close("int4", 128, False, method="gptq"), 0.985, 0.855)
    assert close("trellis4", None, True, rotate=True, method="ldlq")[0] > gptq[0]
    assert reaches(close("trellis2", None, True, rotate=True, method="ldlq"), 0.85, 0.44 + 0.15)


def test_a_plan_of_two_formats(monkeypatch, capsys, tmp_path):
    """With few sentences and formats. Rounding to the 3 bits of trellis3 gives 0.911, error feedback 0.979."""
    monkeypatch.setattr(demo_plan, "SENTENCES", 8)
    monkeypatch.setattr(demo_plan, "CANDIDATES", demo_plan.CANDIDATES[1:3])
    plan, path = tmp_path / "plan.json", tmp_path / "figures.json"
    few = ["--limit", "40", "--calibrate", "60", "--repeat", "1"]
    assert main(["demo", "--budget-bits", "3.5", "--save-plan", str(plan), *few, "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    figures = json.loads(path.read_text("utf-8"))
    assert 3.4 < figures["mixed"]["bits_per_weight"] <= 3.5
    assert figures["cosine_mean"] > 0.98
    assert {options["format"] for options in Plan.load(plan).layers.values()} == {"trellis3", "trellis4"}
    assert "mixed, 3.5 bits" in out and "calibrated with 60 other sentences" in out


def test_low_bit_weights_and_a_query(tmp_path):
    path = tmp_path / "figures.json"
    command = [*DEMO, "--weights", "int4", "--group", "64", "--activations", "float32", "--symmetric"]
    command += ["--query", "exception", "--top", "2", "--limit", "50", "--repeat", "1", "--json", path]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and done.stderr == ""
    figures = json.loads(path.read_text("utf-8"))
    assert figures["scheme"] == {
        "weights": "int4", "group_size": 64, "symmetric": True, "activations": "float32",
        "rotate": False, "window": None, "method": "rtn", "static": False, "plan": None}
    assert 4.25 <= figures["int4"]["bits_per_weight"] < 4.3
    assert figures["int4"]["weight_bytes"] < figures["float32"]["weight_bytes"] / 7
    assert len(figures["most_similar"]) == 2
    assert "int4 g64" in done.stdout and "activations: float32" in done.stdout


def test_sentences_from_standard_input():
    done = subprocess.run([*DEMO, "-"], input="Just one.\n", capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert "1 sentence from standard input" in done.stdout
    assert "needs two sentences" in done.stdout


def test_broken_model_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "find_model", lambda: tmp_path)
    assert main(["demo"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"{tmp_path} cannot be read" in err


def test_progress_bar_on_a_terminal_and_ctrl_c():
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 25, 80, 0, 0))  # rows, columns
    with subprocess.Popen(
        [*DEMO, "--repeat", "100"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        # A job in the background would inherit "ignore".
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as child:
        os.close(theirs)
        shown = b""
        while b"encoding" not in shown:
            shown += os.read(ours, 1024)
        child.send_signal(signal.SIGINT)
        shown += _rest(ours)
        assert child.wait() == 130
        assert child.stdout.read() == b""
    assert b"interrupted" in shown and b"Traceback" not in shown


def _rest(descriptor):
    """What comes until the other side closes."""
    shown = b""
    try:
        while part := os.read(descriptor, 1024):
            shown += part
    except OSError:  # how Linux ends a pseudo-terminal
        pass
    os.close(descriptor)
    return shown
