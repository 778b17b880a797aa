"""How `python -m qkernels demo` quantizes: what its options ask for, the layers, the table."""

import argparse

import numpy as np
import pytest

import qkernels
from qkernels import demo, demo_encoding, ptq, ref
from qkernels.__main__ import main
from qkernels.demo_calibration import Observed
from qkernels.demo_linears import (
    COMPARED, DEFAULTS, DYNAMIC_INT8, MIXED, SMOOTHING, STATIC_INT8, Float32Linear, Int8Linear, LowBitLinear, Scheme)
from qkernels.demo_report import report

pytestmark = pytest.mark.any_isa


def schemes(*arguments):
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return demo.choose_schemes(parser.parse_args(arguments))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ("", DYNAMIC_INT8),
        ("--weights int8 --activations int8 --group none --symmetric", DYNAMIC_INT8),
        ("--weights int8 --group 64", Scheme("int8", 64, True, "int8")),
        ("--asymmetric", Scheme("int8", None, False, "int8")),
        ("--activations float32", Scheme("int8", None, True, "float32")),
        ("--weights int4", Scheme("int4", 32, False, "int8")),
        ("--weights int4 --group none", Scheme("int4", None, False, "int8")),
        ("--weights int2 --group 1536 --symmetric --activations float32", Scheme("int2", 1536, True, "float32")),
        ("--weights nf4", Scheme("nf4", 64, True, "int8")),
        ("--weights log4 --group none --symmetric", Scheme("log4", None, True, "int8")),
        ("--weights ternary --rotate", Scheme("ternary", 32, True, "int8", True)),
        ("--rotate", Scheme("int8", None, True, "int8", True)),
        ("--weights trellis2", Scheme("trellis2", None, True, "int8", True)),
        ("--weights trellis3 --no-rotate --group 128", Scheme("trellis3", 128, True, "int8")),
        ("--weights trellis4 --window 16", Scheme("trellis4", None, True, "int8", True, 16)),
        ("--weights int4 --method gptq", Scheme("int4", 32, False, method="gptq")),
        ("--weights trellis2 --method ldlq", Scheme("trellis2", None, True, "int8", True, method="ldlq")),
        ("--weights int8 --static", STATIC_INT8),
        ("--static --symmetric", STATIC_INT8),
        ("--budget-bits 3.5 --activations float32", Scheme(MIXED, None, True, "float32", plan=3.5)),
        ("--plan some.json", Scheme(MIXED, None, True, plan="some.json")),
    ],
)
def test_options_and_their_defaults(arguments, expected):
    assert schemes(*arguments.split()) == [expected]


def test_compare_takes_all():
    assert schemes("--compare") == list(COMPARED)
    assert len(set(map(str, COMPARED))) < len(set(COMPARED)) == 24  # some differ in activations alone
    assert {scheme.weights for scheme in COMPARED} == {*DEFAULTS, MIXED}
    assert {scheme.method for scheme in COMPARED} == {"rtn", "hqq", "awq", "gptq", "ldlq"}


@pytest.mark.parametrize(
    "arguments",
    ["--weights int8", "--group none", "--group 32", "--activations int8", "--symmetric", "--asymmetric", "--rotate",
     "--no-rotate", "--window 12", "--query x", "--method gptq", "--static", "--plan x", "--budget-bits 4"],
)
def test_compare_goes_with_none_of_them(monkeypatch, capsys, arguments):
    def find_model():
        raise AssertionError("work was begun")

    monkeypatch.setattr(demo, "find_model", find_model)
    assert main(["demo", "--compare", *arguments.split()]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"leave out {arguments.split()[0]}\n" in err


@pytest.mark.parametrize("arguments", [
    "--asymmetric --weights nf4", "--window 16", "--window 12 --weights int4", "--method gptq --weights trellis2",
    "--method hqq --weights nf4", "--static --weights int4", "--save-plan x",
])  # fmt: skip
def test_options_that_a_format_does_not_have(capsys, arguments):
    assert main(["demo", *arguments.split()]) == 1
    out, err = capsys.readouterr()
    option = " ".join(arguments.split()[: 1 + arguments.startswith("--method")])
    assert out == "" and err.count("\n") == 1 and f"{option} goes with" in err


@pytest.mark.parametrize("arguments", [
    "--plan x --weights int4", "--plan x --budget-bits 4", "--budget-bits 4 --group 32", "--plan x --method gptq",
    "--budget-bits 4 --static", "--static --group 32", "--static --activations int8", "--static --method gptq",
])  # fmt: skip
def test_options_that_do_not_go_together(capsys, arguments):
    assert main(["demo", *arguments.split()]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "leave out --" in err


@pytest.mark.parametrize("bits", ["2", "-1", "nan"])
def test_budgets_that_no_format_keeps(capsys, bits):
    assert main(["demo", "--budget-bits", bits]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "--budget-bits: got" in err


def test_plans_that_cannot_be_read(tmp_path, capsys):
    path = tmp_path / "plan.json"
    for content in (None, "{", '{"version": 9, "layers": {}}', '{"version": 1, "layers": {"a": {"format": "int3"}}}'):
        if content is not None:
            path.write_text(content)
        assert main(["demo", "--plan", str(path)]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and str(path) in err


@pytest.mark.parametrize(
    "arguments",
    ["--weights int3", "--weights trellis2 --window 11", "--weights trellis2 --window 17", "--group 48",
     "--group 0", "--group -32", "--group 1568", "--group x", "--activations uint8",
     "--symmetric --asymmetric"],
)
def test_bad_options(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", *arguments.split()])
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for name in ("--weights", "--group", "--activations", "--symmetric", "--asymmetric", "--rotate", "--window",
                 "--compare", "--method", "--static", "--plan", "--budget-bits", "--save-plan", "--calibrate"):
        assert name in out


@pytest.fixture
def layer():
    rng = np.random.default_rng(3)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in ((7, 96), (24, 96), (24,)))


def test_int8_is_dynamic_uint8(layer):
    x, weight, bias = layer
    linear = DYNAMIC_INT8.make_linear(weight, bias)
    assert isinstance(linear, Int8Linear)
    x_q, row_scales, zero_points = qkernels.dynamic_quantize(x, axis=0, dtype="uint8")
    wp = qkernels.choose_qparams(weight, "int8", axis=0)
    expected = qkernels.int8_gemm(
        x_q, qkernels.quantize(weight, wp.scale, axis=0).T, wp.scale, a_zero_point=zero_points,
        row_scales=row_scales, bias=bias)
    np.testing.assert_array_equal(linear(x), expected)


@pytest.fixture
def observed():
    seen = Observed(96)
    x = np.random.default_rng(4).normal(size=(300, 96)).astype(np.float32)
    seen.observe(x * np.float32([9] * 6 + [1] * 90))
    return seen


WITH_LINEAR = [scheme for scheme in COMPARED[1:] if not scheme.static and scheme.weights != MIXED]


@pytest.mark.parametrize("scheme", [*WITH_LINEAR, Scheme("int8", 32, True), Scheme("int4", None, True)])
def test_the_others_are_linear(layer, observed, scheme):
    x, weight, bias = layer
    linear = scheme.make_linear(weight, bias, observed if scheme.is_calibrated else None)
    assert isinstance(linear, LowBitLinear)
    assert linear.nbytes == linear.weight.nbytes
    qw = qkernels.quantize_weight(
        weight, scheme.weights, group_size=scheme.group_size, symmetric=scheme.symmetric, rotate=scheme.rotate,
        method=scheme.method, calibration=observed.statistics)
    np.testing.assert_array_equal(linear(x), qkernels.linear(x, qw, bias, activations=scheme.activations))
    if scheme.activations == "float32":
        np.testing.assert_allclose(linear(x), Float32Linear(qw.dequantize(), bias)(x), atol=1e-4)


def test_static_layers_are_smoothed(layer, observed):
    """Bit-identical to the oracle, with a range for all columns that is known beforehand."""
    x, weight, bias = layer
    linear = STATIC_INT8.make_linear(weight, bias, observed)
    scales, _ = ptq.smooth([weight], observed.statistics, SMOOTHING)
    assert np.ptp(np.log(scales)) > 1
    low, high = (observed.columns.low / scales).min(), (observed.columns.high / scales).max()
    parameters = qkernels.choose_qparams(np.array([low, high]), "uint8", symmetric=False)
    want = ref.static_linear(x, weight, bias, input=parameters, input_scales=1 / scales)
    np.testing.assert_array_equal(linear(x), want)


def figures(sentences, neighbors):
    rows = [
        {"scheme": scheme._asdict(), "bits_per_weight": 4.75, "weight_bytes": 6_310_000,
         "linear_ms_per_sentence": 2.0, "total_ms_per_sentence": 3.0, "quantization_seconds": 1.5,
         "cosine_mean": 0.9721, "cosine_worst": 0.9253, "nearest_neighbor_agreement": neighbors}
        for scheme in COMPARED
    ]
    return {
        "model": "all-MiniLM-L6-v2", "source": "a file", "sentences": sentences, "tokens": 28 * sentences,
        "isa": "scalar", "threads": 1, "repeat": 3, "batch_size": 16, "linear_layers": 36,
        "float32": {"weight_bytes": 42_470_000, "linear_ms_per_sentence": 9.0, "total_ms_per_sentence": 12.0},
        "compared": rows, "calibration": {"sentences": 400, "seconds": 12.34},
    }


def test_table():
    text = report(figures(200, 0.86))
    rows = [line for line in text.splitlines() if "4.50x" in line]
    assert [line.split()[-7:] for line in rows] == [
        [activations, "4.75", "6.31", "4.50x", "0.9721", "86.0", "%"]
        for activations in ("uint8", "uint8", "float32", "int8", "float32", *["int8"] * 19)
    ]
    for row, scheme in zip(rows, COMPARED, strict=True):
        assert row.startswith(f"{scheme} ")
    assert max(map(len, text.splitlines())) <= 120
    assert "calibrated with 400 other sentences in 12.3 s" in text and "static uint8" in text


def test_table_of_one_sentence():
    text = report(figures(1, None))
    assert "1 sentence from" in text and text.count("n/a") == len(COMPARED)


def test_agreement():
    vectors = np.eye(4, dtype=np.float32)[:3]
    turned = vectors[[0, 2, 1]]
    assert demo_encoding.agreement(vectors, vectors) == {
        "cosine_mean": 1.0, "cosine_worst": 1.0, "nearest_neighbor_agreement": 1.0}
    close = demo_encoding.agreement(vectors, turned)
    assert close["cosine_mean"] == pytest.approx(1 / 3) and close["cosine_worst"] == 0.0
    assert demo_encoding.agreement(vectors[:1], vectors[:1])["nearest_neighbor_agreement"] is None
