"""quantize with a file of statistics: how its entries are found, layers that it lacks, headers that are read once."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import checkpoint_cases as cases
import numpy as np
import pytest
from file_cases import assert_same_value, every_kind

import qkernels
from qkernels import safetensors_format
from qkernels.__main__ import main
from qkernels.calibration import InputStatistics
from qkernels.methods import CALIBRATED
from qkernels.mixed import Plan
from qkernels.rounding import output_error
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa
GPTQ = {"format": "int4", "group_size": 32, "method": "gptq"}
K = 64


def seen(rows, seed=0):
    return InputStatistics(K).observe(np.random.default_rng(seed).normal(size=(rows, K)).astype(np.float32))


def quantize(folder, arrays, statistics, options=GPTQ, **others):
    """The report; the result is folder / out.safetensors."""
    model = cases.write(folder / "m.safetensors", arrays)
    qkernels.save(folder / "seen", statistics)
    with ThreadPoolExecutor(1) as threads:
        return quantize_checkpoint(model, folder / "out.safetensors", options=options, calibration=folder / "seen",
                                   executor=threads, **others)


def test_headers_are_read_once(tmp_path, monkeypatch):
    """Not for each layer: a header is as long as there are layers."""
    read, original = [], safetensors_format.read_header

    def counted(file):
        read.append(file.name)
        return original(file)

    monkeypatch.setattr(safetensors_format, "read_header", counted)
    counts = []
    for layers in (1, 9):
        read.clear()
        names = [f"experts.{i}.weight" for i in range(layers)]
        quantize(tmp_path, {name: np.eye(32, K, dtype=np.float32) for name in names}, dict.fromkeys(names, seen(40)))
        counts.append(len(read))
    assert counts[0] == counts[1] <= 4


def test_an_entry_by_its_place(tmp_path):
    """Of every kind, in another process, with the checksums compared there."""
    path, want = tmp_path / "model", every_kind()
    qkernels.save(path, want)
    model = qkernels.load(path, verify=False)
    places = {name: pickle.loads(pickle.dumps(model.place(name))) for name in model}
    for name, value in want.items():
        assert_same_value(places[name].value(), value, name)
        assert places[name].tensors.keys() == places[name].checksums.keys()
    raw = bytearray(path.read_bytes())
    raw[places["seen"].tensors["seen.products"].start] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"model: seen.products: is damaged"):
        places["seen"].value()
    assert_same_value(places["bias"].value(), want["bias"])
    path.write_bytes(raw[:-1])
    with pytest.raises(OSError, match="model: was changed in the meantime"):
        places["bias"].value()
    path.unlink()
    with pytest.raises(OSError, match="model"):
        places["bias"].value()


NAMES = [f"experts.{i}.weight" for i in range(6)] + ["nextn.weight"]


def some_without():
    """Weights, and statistics that lack the last one and have three of no rows; as few as one of others."""
    rng = np.random.default_rng(1)
    arrays = {name: rng.normal(size=(32, K)).astype(np.float32) for name in NAMES}
    return arrays, {name: seen(0 if i in (1, 2, 4) else i + 1, i) for i, name in enumerate(NAMES[:-1])}


def test_layers_without_statistics_are_named_together(tmp_path):
    arrays, statistics = some_without()
    with pytest.raises(ValueError) as error:
        quantize(tmp_path, arrays, statistics)
    assert str(error.value).startswith(f"calibration: {tmp_path}/seen lacks nextn.weight, and has seen no rows of "
                                       "experts.1.weight, experts.2.weight, experts.4.weight; --fallback")
    statistics |= {NAMES[3]: InputStatistics(K - 1), NAMES[5]: np.zeros(3)}
    with pytest.raises(ValueError, match=r"experts\.3\.weight: takes .* of 64 values; experts\.5\.weight: takes"):
        quantize(tmp_path, arrays, statistics, fallback="rtn")  # which is not what is wrong with them
    with pytest.raises(ValueError, match="fallback: got 'gptq', takes one of rtn, hqq"):
        quantize(tmp_path, arrays, statistics, fallback="gptq")


@pytest.mark.parametrize("method, fallback", [("gptq", "rtn"), ("awq", "hqq"), ("adaround", "rtn"), ("ldlq", "rtn")])
def test_fallback(tmp_path, method, fallback):
    """Each layer is what quantize_weight makes of it, with its statistics or the other method; the report says so."""
    arrays, statistics = some_without()
    options = GPTQ | {"method": method}
    instead = {"format": "int4", "group_size": 32} | ({"method": fallback} if fallback != "rtn" else {})
    with pytest.warns(UserWarning, match="4 of 7 weights, for which the method is " + fallback) as caught:
        report = quantize(tmp_path, arrays, statistics, options, fallback=fallback)
    without = [name for name in NAMES if name not in statistics or not statistics[name].count]
    assert str(caught[0].message).endswith(": " + ", ".join(without))
    cases.assert_quantized(tmp_path / "out.safetensors", arrays, {
        name: instead if name in without else options | {"calibration": statistics[name]} for name in NAMES})
    of = {layer["name"]: layer["of"] for layer in report["layers"]}
    assert {name for name in NAMES if f"method {method}" in of[name]} == set(NAMES) - set(without)
    assert all(of[name] == "int4, group_size 32" + (", method hqq" if fallback == "hqq" else "") for name in without)


def test_no_fallback_where_nothing_is_calibrated(tmp_path, recwarn):
    arrays, statistics = some_without()
    quantize(tmp_path, arrays, statistics, {"format": "int8"}, fallback="rtn")
    quantize(tmp_path, arrays, dict.fromkeys(NAMES, seen(70)), fallback="rtn")
    assert not recwarn.list


def test_fallback_by_the_command(tmp_path, capsys):
    """Also before anything is done; the plan that is saved has the method that each layer gets."""
    arrays, statistics = some_without()
    model = cases.write(tmp_path / "m.safetensors", arrays)
    qkernels.save(tmp_path / "seen", statistics)
    arguments = ["quantize", str(model), str(tmp_path / "out.safetensors"), "--method", "gptq", "--calibration",
                 str(tmp_path / "seen"), "--processes", "1", "--save-plan", str(tmp_path / "plan.json")]
    assert main(arguments) == 2
    line, = capsys.readouterr().err.splitlines()
    assert all(name in line for name in NAMES if name not in statistics or not statistics[name].count)
    for more in (["--dry-run"], []):
        assert main([*arguments, "--fallback", "rtn", *more]) == 0
        line, = capsys.readouterr().err.splitlines()
        assert line.startswith("qkernels quantize: ") and line.endswith(
            "the method is rtn: experts.1.weight, experts.2.weight, experts.4.weight, nextn.weight")
        plan = Plan.load(tmp_path / "plan.json").layers
        assert [name for name in NAMES if "method" not in plan[name]] == [NAMES[i] for i in (1, 2, 4, 6)]


@pytest.mark.parametrize("method", CALIBRATED)
@pytest.mark.parametrize("rows", [
    np.zeros((5, K)), np.ones((1, K)), np.eye(1, K), np.eye(3, K, 5) * 1e-30, np.full((40, K), 2.0**50),
    np.eye(7, K) * 10.0 ** np.arange(-20, 15, 5)[:, None],
], ids=["zeros", "one", "one value", "tiny", "huge", "very different"])
def test_statistics_that_say_little(tmp_path, method, rows):
    """Of few rows, of zeros, of extremes: a layer comes of them all the same, on these inputs no worse than rounded."""
    w = np.random.default_rng(2).normal(size=(32, K)).astype(np.float32)
    statistics = InputStatistics(K).observe(rows.astype(np.float32))
    quantize(tmp_path, {"w.weight": w}, {"w": statistics}, GPTQ | {"method": method})
    error, of_plain = (output_error(w - qw.dequantize(), statistics.hessian) for qw in (
        qkernels.load(tmp_path / "out.safetensors")["w.weight"], qkernels.quantize_weight(
            w, "int4", group_size=32, ranges="mse")))
    assert 0 <= error <= of_plain
