"""Measuring, planning and quantizing: errors against plain float64, budgets against real bytes, interruptions."""

import json
import re

import cases
import numpy as np
import pytest
from cases import raises

import qkernels
from qkernels.mixed import frontier, kl_divergence, make_plan, sensitivity
from qkernels.statistics import InputStatistics

pytestmark = [pytest.mark.any_isa, pytest.mark.filterwarnings("error")]

SHAPES = {"query": (48, 96), "up": (130, 64), "down": (33, 200), "head": (20, 96)}
WEIGHTS = {name: cases.floats(i, shape) for i, (name, shape) in enumerate(SHAPES.items())}
INPUTS = {name: cases.floats(i + 10, (70, k), (1 + i) / 4) for i, (name, (_, k)) in enumerate(SHAPES.items())}
CALIBRATION = {name: InputStatistics(x.shape[1]).observe(x) for name, x in INPUTS.items()}
COUNT = sum(w.size for w in WEIGHTS.values())
CANDIDATES = [
    {"format": "ternary"}, {"format": "int2", "group_size": 32, "symmetric": False},
    {"format": "int4", "method": "gptq"}, {"format": "nf4", "group_size": 32, "rotate": True, "seed": 3},
    {"format": "int8"},
]  # fmt: skip
HESSIAN = {"measure": "hessian", "calibration": CALIBRATION}


@pytest.fixture(scope="module")
def table():
    """What is measured of all candidates."""
    table = {}
    make_plan(WEIGHTS, CANDIDATES, budget_bits=20, table=table, **HESSIAN)
    return table


def quantized(name, candidate):
    statistics = CALIBRATION[name] if candidate.get("method") == "gptq" else None
    return qkernels.quantize_weight(WEIGHTS[name], **candidate, calibration=statistics)


def nbytes(weights):
    return sum(qw.nbytes for qw in weights.values())


def by_definition(measure, name, qw, activations):
    """In float64, from the rows of x."""
    w, x = WEIGHTS[name].astype(np.float64), INPUTS[name].astype(np.float64)
    outputs = x @ w.T
    if measure == "hessian":
        return ((x @ qw.dequantize().T.astype(np.float64) - outputs) ** 2).sum() / (outputs**2).sum()
    noisy = qkernels.linear(INPUTS[name], qw, activations=activations).astype(np.float64)
    if measure == "sqnr":
        return ((noisy - outputs) ** 2).sum() / (outputs**2).sum()
    p, q = (np.exp(y - y.max(1, keepdims=True)) for y in (outputs, noisy))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return (p * np.log(np.where(p > 0, p / q, 1))).sum() / len(p)


@pytest.mark.parametrize("activations", ["int8", "float32"])
@pytest.mark.parametrize("measure", ["hessian", "sqnr", "kl"])
def test_errors_are_those_of_a_plain_computation(measure, activations):
    for name in ("query", "head", "down"):
        x = INPUTS[name]
        got = sensitivity(WEIGHTS[name], CANDIDATES, measure=measure, calibration=CALIBRATION[name], x=x,
                          activations=activations)
        want = [by_definition(measure, name, quantized(name, candidate), activations) for candidate in CANDIDATES]
        assert got.dtype == np.float64 and got[-1] < got[0]
        np.testing.assert_allclose(got, want, rtol=2e-6)  # products of statistics are float32


def test_errors_of_zeros_are_absolute():
    w, x = np.zeros((3, 32), np.float32), cases.floats(1, (5, 32))
    statistics = InputStatistics(32).observe(x)
    for measure in ("hessian", "sqnr", "kl"):
        assert sensitivity(w, [{"format": "int8"}], measure=measure, calibration=statistics, x=x) == 0
        assert sensitivity(w, [{"format": "binary"}], measure=measure, calibration=statistics, x=x) >= 0
        assert sensitivity(w[:0], [{"format": "int8"}], measure=measure, calibration=statistics, x=x) == 0


def test_kl_divergence():
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    assert kl_divergence(np.log(p) + 7, np.log(q) - 700) == pytest.approx(0.25 * np.log(2), rel=1e-12)
    assert kl_divergence([[1000.0, -1000.0]], [[-1000.0, 1000.0]]) == pytest.approx(2000)
    assert kl_divergence(np.zeros((2, 0)), np.zeros((2, 0))) == kl_divergence(np.zeros((0, 2)), np.zeros((0, 2))) == 0
    raises(ValueError, "other", kl_divergence, np.zeros((2, 0)), [1])
    raises(ValueError, "other", kl_divergence, [1, 2], [1, np.nan])
    raises(ValueError, "logits", kl_divergence, 1, 1)


@pytest.mark.parametrize("bits", [3.2, 4.5, 5.3, 7, 20])
def test_the_budget_holds_for_real_bytes(bits, table):
    plan = make_plan(WEIGHTS, CANDIDATES, budget_bits=bits, table=table, **HESSIAN)
    weights = plan.quantize(WEIGHTS, calibration=CALIBRATION)
    assert list(weights) == list(WEIGHTS)
    assert 8 * nbytes(weights) / COUNT <= bits
    for name, qw in weights.items():
        measured = plan.measured[name]
        assert (measured["bytes"], measured["bits"]) == (qw.nbytes, pytest.approx(qw.bits_per_weight))
        assert measured["error"] == pytest.approx(by_definition("hessian", name, qw, None), rel=2e-6)
    same = make_plan(WEIGHTS, CANDIDATES, budget_bytes=nbytes(weights), table=table, **HESSIAN)
    assert same == plan


def test_the_plan_is_the_best_of_all():
    """5^4 plans, whose errors and bytes are those of weights really quantized."""
    errors = [[by_definition("sqnr", name, quantized(name, c), "int8") for c in CANDIDATES] for name in WEIGHTS]
    costs = [[quantized(name, c).nbytes for c in CANDIDATES] for name in WEIGHTS]
    seen = set()
    options = {"measure": "sqnr", "inputs": INPUTS, "calibration": CALIBRATION, "table": {}}
    for budget, error, _ in zip(*frontier(errors, costs)):
        plan = make_plan(WEIGHTS, CANDIDATES, budget_bytes=budget, **options)
        assert sum(row["error"] for row in plan.measured.values()) == pytest.approx(error)
        seen.add(repr(plan))
    assert len(seen) > 10
    least = sum(map(min, costs)) + max(costs[1]) - min(costs[1])
    importance = {name: name == "up" for name in WEIGHTS}
    plan = make_plan(WEIGHTS, CANDIDATES, budget_bytes=least, importance=importance, **options)
    assert [options["format"] for options in plan.layers.values()] == ["ternary", "int8", "ternary", "ternary"]


def test_a_function_measures_the_model():
    """Of two layers in turn, by the divergence of its logits; what was measured is what it returned."""
    layers = {"up": WEIGHTS["up"], "out": cases.floats(40, (9, 130), 0.1)}
    x = INPUTS["up"]

    def logits(weights):
        hidden, out = (weights[name].dequantize() if name in weights else w for name, w in layers.items())
        return np.maximum(x @ hidden.T, 0) @ out.T

    reference, calls = logits({}), []

    def error(weights):
        calls.append(list(weights))
        return kl_divergence(reference, logits(weights))

    plan = make_plan(layers, [{"format": "int4"}, {"format": "int8"}], budget_bits=20, measure=error)
    assert calls == [["up"], ["up"], ["out"], ["out"]]
    assert {options["format"] for options in plan.layers.values()} == {"int8"}
    weights = plan.quantize(layers)
    for name, row in plan.measured.items():
        assert row["error"] == error({name: weights[name]}) > 0


def test_time_is_a_budget():
    table = {}
    plan = make_plan(WEIGHTS, CANDIDATES, budget_seconds=100, rows=3, table=table, **HESSIAN)
    assert all(row["seconds"] > 0 for row in plan.measured.values())
    measured = [layer["measured"] for layer in table["layers"].values()]
    least = sum(min(entry["seconds"] for entry in entries) for entries in measured)
    tight = make_plan(WEIGHTS, CANDIDATES, budget_seconds=1.01 * least, rows=3, table=table, **HESSIAN)
    assert sum(row["seconds"] for row in tight.measured.values()) <= 1.01 * least
    message = raises(ValueError, "budget_seconds", make_plan, WEIGHTS, CANDIDATES, budget_seconds=0.5 * least, rows=3,
                     table=table, **HESSIAN)
    assert f"{least:.12g}"[:10] in message


def test_measuring_goes_on_where_it_was_interrupted(monkeypatch, table):
    """Whichever measurement is interrupted; the table survives JSON; each candidate is quantized once."""
    whole, want = table, make_plan(WEIGHTS, CANDIDATES, budget_bits=5, table=table, **HESSIAN)
    real, calls = qkernels.mixed.quantized, []

    def interrupted(w, candidate, statistics):
        calls.append(candidate)
        if len(calls) % 4 == 0:
            raise KeyboardInterrupt
        return real(w, candidate, statistics)

    monkeypatch.setattr(qkernels.mixed, "quantized", interrupted)
    table, plan = {}, None
    while plan is None:
        try:
            plan = make_plan(WEIGHTS, CANDIDATES, budget_bits=5, table=table, **HESSIAN)
        except KeyboardInterrupt:
            table = json.loads(json.dumps(table))
    assert plan == want and table == whole
    assert len(calls) == 20 + 6  # all, and those interrupted
    del calls[:]
    monkeypatch.setattr(qkernels.mixed, "quantized", lambda *args: calls.append(args[1]) or real(*args))
    for candidates, added in [(CANDIDATES[:2], 0), ([*CANDIDATES, {"format": "log4"}], 4)]:
        assert set(make_plan(WEIGHTS, candidates, budget_bits=9, table=table, **HESSIAN).layers) == set(WEIGHTS)
        assert len(calls) == added


def test_bad_candidates():
    """Found before anything is measured, and named."""
    class Unread(dict):
        def __getitem__(self, name):
            raise AssertionError("a weight was read")

    good = {"format": "int8"}
    for bad, part in [
        ({"format": "int5"}, "1: format: got 'int5'"), ({"bits": 4}, "takes a dict"), ("int4", "takes a dict"),
        ({"format": "int4", "groupsize": 32}, "'groupsize'"), ({"format": "int4", "importance": None}, "'importance'"),
        ({"format": "int4", "group_size": 33}, "group_size"), ({"format": "int4", "group_size": ""}, "1: group_size"),
        ({"format": "nf4", "symmetric": False}, "1: symmetric"), ({"format": "trellis2", "method": "hqq"}, "1: method"),
        ({"format": "int4", "group_size": np.int64(32)}, "group_size: got"), ({"format": "int4", "w": 1}, "'w'"),
        ({"format": "nf4", "method": "hqq"}, "1: method"), ({"format": ["int4"]}, "1: format"),
    ]:  # fmt: skip
        call = ValueError, "candidates", make_plan, Unread(WEIGHTS), [good, bad]
        assert part in raises(*call, budget_bits=4, **HESSIAN)
        assert part in raises(ValueError, "candidates", sensitivity, WEIGHTS["up"], [good, bad])
    for bad in ([], "int4", good):
        raises(ValueError, "candidates", sensitivity, WEIGHTS["up"], bad)


def test_bad_input():
    def bad(error, argument, **options):
        options = {"budget_bits": 9, **HESSIAN, **options}
        return raises(error, argument, make_plan, options.pop("weights", WEIGHTS), CANDIDATES, **options)

    message = bad(ValueError, "budget_bits", budget_bits=1)
    least = float(re.search(r"takes at least (\S+),", message).group(1))
    plan = make_plan(WEIGHTS, CANDIDATES, budget_bits=least, **HESSIAN)
    assert {options["format"] for options in plan.layers.values()} <= {"ternary", "int2"}
    assert 8 * nbytes(plan.quantize(WEIGHTS)) / COUNT == least
    for budget in ({"budget_bytes": 1}, {"budget_bits": None}, {"budget_bits": -1}):
        bad(ValueError, "budget_bits", **budget)
    bad(TypeError, "budget_bits", budget_bits="4")
    bad(ValueError, "rows", budget_bits=None, budget_seconds=1)
    bad(ValueError, "rows", rows=0)
    bad(ValueError, "measure", measure="accuracy")
    bad(ValueError, "activations", activations="int4")
    assert "head" in bad(ValueError, "calibration", calibration={n: CALIBRATION[n] for n in WEIGHTS if n != "head"})
    assert "query, up" in bad(ValueError, "inputs", measure="sqnr")
    assert "tail" in bad(ValueError, "importance", importance={"tail": 1})
    assert "up" in bad(ValueError, "importance", importance={"up": -1})
    assert "kl" in bad(ValueError, "table", table={"settings": {"measure": "kl"}})
    assert "up: w: got dtype" in bad(TypeError, "weights", weights={**WEIGHTS, "up": WEIGHTS["up"].astype(np.float64)})
    assert "up: calibration" in bad(ValueError, "weights", calibration={**CALIBRATION, "up": CALIBRATION["down"]})
    assert "up: calibration" in bad(TypeError, "weights", calibration={**CALIBRATION, "up": 3})
    assert "up: x: got shape" in bad(ValueError, "weights", measure="kl", inputs={**INPUTS, "up": INPUTS["down"]})
    nan = {**WEIGHTS, "up": np.full_like(WEIGHTS["up"], np.nan)}
    assert "up: w: contains NaN" in bad(ValueError, "weights", weights=nan)
    assert "query: measure: gave" in bad(ValueError, "weights", measure=lambda weights: np.nan)
    assert "query: measure: got None" in bad(TypeError, "weights", measure=lambda weights: None)
    table = {}
    make_plan(WEIGHTS, CANDIDATES[:1], budget_bits=9, table=table, **HESSIAN)
    assert "up: w: got shape" in bad(ValueError, "weights", weights={**WEIGHTS, "up": WEIGHTS["up"][1:]}, table=table)
    raises(TypeError, "x", sensitivity, WEIGHTS["up"], CANDIDATES, measure="kl")
    raises(TypeError, "calibration", sensitivity, WEIGHTS["up"], CANDIDATES)
    raises(ValueError, "activations", sensitivity, WEIGHTS["up"], CANDIDATES, activations="int4", **HESSIAN)
    raises(ValueError, "w", sensitivity, WEIGHTS["up"][0], CANDIDATES, calibration=CALIBRATION["up"])
    raises(ValueError, "x", sensitivity, WEIGHTS["up"], CANDIDATES, measure="kl", x=INPUTS["up"][:0])
    raises(ValueError, "calibration", sensitivity, WEIGHTS["up"], CANDIDATES, calibration=InputStatistics(64))


def test_no_layers():
    assert make_plan({}, CANDIDATES, budget_bits=1, **HESSIAN).layers == {}
