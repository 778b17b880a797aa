"""Plans as files, their quantization, and the chart of the frontier."""

import builtins
import json
import os
import struct

import cases
import numpy as np
import pytest
from cases import raises

import qkernels
from qkernels._files import FileError
from qkernels.mixed import Plan, make_plan, plot_frontier
from qkernels.statistics import InputStatistics

pytestmark = [pytest.mark.any_isa, pytest.mark.filterwarnings("error")]

LAYERS = {"a": {"format": "int4", "group_size": 32, "symmetric": False, "method": "gptq"}, "é.b": {"format": "nf4"},
          "c": {"format": "ternary"}}
WEIGHTS = {name: cases.floats(i, (12 + i, 64)) for i, name in enumerate(LAYERS)}
CALIBRATION = {"a": InputStatistics(64).observe(cases.floats(9, (80, 64)))}


def same(got, want):
    """Two dicts of weights are equal bit for bit."""
    assert list(got) == list(want)
    for name, qw in want.items():
        states = got[name].to_state(), qw.to_state()
        assert states[0].keys() == states[1].keys()
        for entry in states[0]:
            np.testing.assert_array_equal(states[0][entry], states[1][entry])
    return True


def by_hand(layers):
    return {name: qkernels.quantize_weight(WEIGHTS[name], **options,
                                           calibration=CALIBRATION["a"] if "method" in options else None)
            for name, options in layers.items()}


def test_a_plan_is_applied():
    weights = Plan(LAYERS).quantize({**WEIGHTS, "not planned": None}, calibration=CALIBRATION)
    assert same(weights, by_hand(LAYERS))


def test_a_file_holds_the_plan(tmp_path):
    path = tmp_path / "plan.json"
    candidates = [LAYERS["c"], {"format": "int4", "scale_dtype": "float32"}]
    plan = make_plan(WEIGHTS, candidates, budget_bits=6, measure=inverse_size)
    plan.save(path)
    assert Plan.load(path) == plan == Plan.load(str(path))
    assert set(plan.measured["c"]) == {"bits", "bytes", "error"}
    content = json.loads(path.read_text("utf-8"))
    assert content["version"] == 1 and content["layers"] == plan.layers and "é.b" in path.read_text("utf-8")
    assert os.listdir(tmp_path) == ["plan.json"]
    Plan({}).save(path)
    assert Plan.load(path) == Plan({}) != plan
    with pytest.raises(FileError, match="no such folder"):
        plan.save(tmp_path / "no" / "plan.json")


def test_an_edited_file_is_applied(tmp_path):
    """And what was measured of the layer before is no longer said of it."""
    path = tmp_path / "plan.json"
    Plan(LAYERS, {name: {"bits": 4.5} for name in LAYERS}).save(path)
    text = path.read_text("utf-8")
    assert '"format": "ternary"' in text
    path.write_text(text.replace('"format": "ternary"', '"format": "int8", "group_size": 64'), "utf-8")
    plan = Plan.load(path)
    edited = {**LAYERS, "c": {"format": "int8", "group_size": 64}}
    assert plan.layers == edited and set(plan.measured) == {"a", "é.b"}
    assert same(plan.quantize(WEIGHTS, calibration=CALIBRATION), by_hand(edited))
    path.write_text(json.dumps({"version": 1, "layers": {"c": {"format": "int8"}}}))
    assert Plan.load(path) == Plan({"c": {"format": "int8"}})


@pytest.mark.parametrize("text, part", [
    ("", "Expecting value"), ('{"version": 1, "layers": {"a"', "delimiter"),
    ("[1]", "not a plan"), ("{}", "not a plan"),
    ('{"version": 2, "layers": {}}', "version: got 2"), ('{"version": 1, "layers": []}', "layers: got list"),
    ('{"version": 1, "layers": {"up": "int4"}}', "layers: up: got 'int4'"),
    ('{"version": 1, "layers": {"up": {"format": "int5"}}}', "layers: up: format"),
    ('{"version": 1, "layers": {"up": {"format": "int4", "bits": 4}}}', "layers: up: got the option 'bits'"),
    ('{"version": 1, "layers": {"up": {"format": "int4", "group_size": 32.5}}}', "layers: up: group_size"),
    ('{"version": 1, "layers": {"up": {"format": "int4", "group_size": [32]}}}', "layers: up: group_size"),
    ('{"version": 1, "layers": {"up": {"format": "int4", "symmetric": "false"}}}', "up: symmetric: got 'false'"),
    ('{"version": 1, "layers": {"up": {"format": "nf4", "rotate": null}}}', "up: rotate: got None"),
    ('{"version": 1, "layers": {"up": {"format": "int4"}, "up": {"format": "int8"}}}', "twice: up"),
    ('{"version": 1, "layers": {}, "measured": [1]}', "measured"),
    ("[" * 100000, "recursion"), (b"\xff\xfe{", "decode"),
])  # fmt: skip
def test_other_files_are_refused(tmp_path, text, part):
    path = tmp_path / "plan.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="plan.json: ") as caught:
        Plan.load(path)
    assert part in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        Plan.load(tmp_path / "plan.json")


def test_quantizing_goes_on_where_it_was_interrupted():
    class Interrupted(dict):
        def __getitem__(self, name):
            asked.append(name)
            if len(asked) % 2 == 0:
                raise KeyboardInterrupt
            return super().__getitem__(name)

    asked, done, plan = [], {}, Plan(LAYERS)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            plan.quantize(Interrupted(WEIGHTS), calibration=CALIBRATION, done=done)
    assert plan.quantize(Interrupted(WEIGHTS), calibration=CALIBRATION, done=done) is done
    assert asked == ["a", "é.b", "é.b", "c", "c"]
    assert same(done, by_hand(LAYERS))


def test_bad_input():
    plan = Plan(LAYERS)
    assert "lacks é.b, c" in raises(ValueError, "weights", plan.quantize, {"a": WEIGHTS["a"]}, calibration=CALIBRATION)
    assert "lacks a" in raises(ValueError, "calibration", plan.quantize, WEIGHTS)
    for other, part in [({"format": "int8"}, "format: got 'int8'"), ({"group_size": 64}, "group_size: got 64"),
                        ({"symmetric": True}, "symmetric: got True"), ({"rotate": True}, "rotate: got True")]:
        wrong, part = by_hand({"a": {**LAYERS["a"], **other}}), f"done: a: {part}"
        assert part in raises(ValueError, "done", plan.quantize, WEIGHTS, calibration=CALIBRATION, done=wrong)
    raises(TypeError, "done", plan.quantize, WEIGHTS, calibration=CALIBRATION, done={"a": None})
    flat = {**WEIGHTS, "é.b": WEIGHTS["c"][0]}
    assert "é.b: w: got 1 dim" in raises(ValueError, "weights", plan.quantize, flat, calibration=CALIBRATION)
    double = {**WEIGHTS, "c": WEIGHTS["c"].astype(np.float64)}
    assert "c: w: got dtype" in raises(TypeError, "weights", plan.quantize, double, calibration=CALIBRATION)
    raises(ValueError, "layers", Plan, [LAYERS["a"]])


def inverse_size(weights):
    (qw,) = weights.values()
    return 1 / qw.nbytes


def measured(candidates):
    table = {}
    make_plan(WEIGHTS, candidates, budget_bits=20, measure=inverse_size, table=table)
    return table


def test_the_chart_is_a_png(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "frontier.png"
    table = json.loads(json.dumps(measured([{"format": name} for name in ("binary", "ternary", "int4", "int8")])))
    plot_frontier(table, path, importance={"a": 2})
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width >= 800 and height >= 400
    before = content
    with pytest.raises(FileError):
        plot_frontier(table, tmp_path / "no" / "frontier.png")
    raises(ValueError, "importance", plot_frontier, table, path, importance={"z": 2})
    for empty in ({}, {"layers": {"a": {"shape": [1, 1], "measured": []}}}):
        raises(ValueError, "table", plot_frontier, empty, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["frontier.png"]


def test_the_chart_of_errors_of_zero(tmp_path):
    pytest.importorskip("matplotlib")
    table = measured([{"format": "int4"}])
    for layer in table["layers"].values():
        layer["measured"][0]["error"] = 0.0
    plot_frontier(table, tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").stat().st_size > 1000


def test_matplotlib_may_be_missing(monkeypatch, tmp_path):
    def without(name, *args, real=builtins.__import__):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"qkernels\[plot\]"):
        plot_frontier({}, tmp_path / "frontier.png")
