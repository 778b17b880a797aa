"""quantize_checkpoint: what comes of each tensor, of one file and of shards, in every format and executor."""

import json
from concurrent.futures import Future, ThreadPoolExecutor

import checkpoint_cases as cases
import numpy as np
import pytest

import qkernels
from qkernels import _core, entries
from qkernels.calibration import InputStatistics
from qkernels.methods import CALIBRATED
from qkernels.mixed import Plan
from qkernels.quantize_layer import energies, sqnr
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa
SELECTED = _core.selected_isa()
ALL = [
    {"format": "int8"}, cases.INT4, {"format": "int4", "group_size": 64, "scale_dtype": "float32"}, {"format": "int2"},
    {"format": "nf4", "group_size": 64}, {"format": "codebook4"}, {"format": "codebook4", "codebook": "row"},
    {"format": "log4", "group_size": 32}, {"format": "binary", "group_size": 32}, {"format": "ternary"},
    {"format": "trellis2", "rotate": True}, {"format": "trellis3", "window": 12}, {"format": "int8", "method": "hqq"},
    {"format": "int4", "rotate": True, "seed": 3}, {"format": "int4", "group_size": 32, "method": "gptq"},
    {"format": "int4", "group_size": 32, "method": "awq"}, {"format": "trellis2", "method": "ldlq"},
]


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def statistics(arrays, rng=np.random.default_rng(5)):
    return {name.removesuffix(".weight"): InputStatistics(x.shape[1]).observe(
        rng.normal(size=(300, x.shape[1])).astype(np.float32)) for name, x in arrays.items() if x.ndim == 2}


@pytest.mark.parametrize("options", ALL, ids=lambda options: "-".join(map(str, options.values())))
def test_every_format_and_method(tmp_path, threads, options):
    arrays = cases.tensors(layers=2, n=33, k=96)
    model, calibration = cases.write(tmp_path / "m.safetensors", arrays, {"made": "by hand"}), tmp_path / "seen"
    seen = statistics(arrays)
    qkernels.save(calibration, seen)
    is_calibrated = options.get("method") in CALIBRATED
    report = quantize_checkpoint(model, tmp_path / "out.safetensors", options=options, calibration=calibration,
                                 executor=threads)
    cases.assert_quantized(tmp_path / "out.safetensors", arrays, {
        f"{name}.weight": options | ({"calibration": seen[name]} if is_calibrated else {})
        for name in ("layers.0", "layers.1")})
    made = qkernels.load(tmp_path / "out.safetensors")
    assert made.metadata == {"made": "by hand"}
    for layer in report["layers"]:
        weight, w = made[layer["name"]], arrays[layer["name"]].astype(np.float64)
        noise = np.square(w - weight.dequantize()).sum()
        assert layer["sqnr"] == pytest.approx(10 * np.log10(np.square(w).sum() / noise), abs=1e-3)
        assert layer["bytes"] == weight.nbytes
        assert layer["bits"] == pytest.approx(8 * layer["bytes"] / w.size)
        assert layer["seconds"] > 0 and layer["float_bytes"] == 4 * w.size and layer["shape"] == list(w.shape)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "out.safetensors", "seen"]


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_sqnr(size):
    """Of weights whose squares float32 does not hold, too; None of one that is exact."""
    w = np.random.default_rng(3).normal(size=(301, 417)).astype(np.float32) * np.float32(size)
    qw = qkernels.quantize_weight(w, "int8", scale_dtype="float32")
    exact = w.astype(np.float64)
    expected = 10 * np.log10(np.square(exact).sum() / np.square(exact - qw.dequantize()).sum())
    assert sqnr(*energies(w, qw)) == pytest.approx(expected, abs=1e-3)
    assert sqnr(*energies(qw.dequantize(), qw)) is None
    assert sqnr(*energies(w[:0], qkernels.quantize_weight(w[:0]))) is None


def test_report(tmp_path, threads):
    arrays = cases.tensors(layers=2) | {
        "empty.weight": np.zeros((4, 0), np.float32), "zero.weight": np.zeros((2, 32), np.float32),
        "flags.weight": np.ones((2, 32), bool)}
    model, out = cases.write(tmp_path / "m.safetensors", arrays), tmp_path / "out.safetensors"
    report = quantize_checkpoint(model, out, options=cases.INT4, executor=threads, exclude=["*word*", "layers.1.*"])
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert (report["version"], report["qkernels"], report["processes"]) == (1, qkernels.__version__, None)
    assert (report["source"], report["output"]) == (str(model), str(out)) and report["seconds"] > 0
    assert (report["isa"], report["layout"]) == (_core.selected_isa(), entries.layout_id(_core.weight_layout()))
    assert [layer["name"] for layer in report["layers"]] == ["layers.0.weight", "zero.weight"]
    assert [layer["sqnr"] is None for layer in report["layers"]] == [False, True]
    assert report["layers"][0]["of"] == "int4, group_size 32, symmetric False"
    assert {kept["name"]: kept["why"] for kept in report["kept"]} == {
        "embeddings.word.weight": "excluded by *word*", "norm.weight": "1-D", "steps": "1-D", "layers.0.bias": "1-D",
        "layers.1.bias": "1-D", "layers.1.weight": "excluded by layers.1.*", "empty.weight": "empty, 4 x 0",
        "flags.weight": "of dtype BOOL"}
    assert report["kept"][0] | {"why": ""} == {
        "name": "embeddings.word.weight", "shape": [50, 160], "dtype": "F32", "bytes": 32000, "why": ""}


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
def test_other_floats(tmp_path, threads, dtype):
    """They are quantized as their float32 values, and kept as they are."""
    if dtype == "BF16":
        numpy_dtype = pytest.importorskip("ml_dtypes").bfloat16  # the test alone needs it
    else:
        numpy_dtype = {"F16": np.float16, "F64": np.float64}[dtype]
    arrays = {name: x.astype(numpy_dtype) for name, x in cases.tensors(n=700, k=1600, layers=1).items()}  # > a piece
    model = cases.write(tmp_path / "m.safetensors", arrays)
    report = quantize_checkpoint(model, tmp_path / "out.safetensors", options=cases.INT4, executor=threads)
    assert report["layers"][0]["dtype"] == dtype
    made = qkernels.load(tmp_path / "out.safetensors")
    expected = qkernels.quantize_weight(arrays["layers.0.weight"].astype(np.float32), **cases.INT4)
    assert np.array_equal(made["layers.0.weight"].packed.memory, expected.packed.memory)
    assert made["norm.weight"].tobytes() == arrays["norm.weight"].tobytes()


def test_shards(tmp_path, threads):
    """The same entries as those of one file, in files of the source's names, under its index."""
    arrays = cases.tensors(layers=5)
    model = cases.write(tmp_path / "m.safetensors", arrays)
    quantize_checkpoint(model, tmp_path / "one.safetensors", options=cases.INT4, executor=threads)
    source = cases.write_shards(tmp_path / "m", arrays)
    report = quantize_checkpoint(source, tmp_path / "out", options=cases.INT4, executor=threads)
    one, several = qkernels.load(tmp_path / "one.safetensors"), qkernels.load(tmp_path / "out")
    assert set(one) == set(several) and len(report["layers"]) == 5
    for name in one:
        pair = [getattr(x, "packed", x) for x in (one[name], several[name])]
        assert np.array_equal(*[getattr(x, "memory", x) for x in pair])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in source.iterdir())
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    stored = sum(part.nbytes for name in several for part in several.parts(name).values())
    assert index["metadata"]["total_size"] == stored > sum(row["bytes"] for row in report["layers"] + report["kept"])
    by_index = quantize_checkpoint(source / "model.safetensors.index.json", tmp_path / "out2", options=cases.INT4,
                                   executor=threads)
    assert cases.files_in(tmp_path / "out") == cases.files_in(tmp_path / "out2")
    assert [layer["name"] for layer in by_index["layers"]] == [layer["name"] for layer in report["layers"]]


def test_plan(tmp_path, threads):
    arrays = cases.tensors()
    plan = Plan({"layers.1": {"format": "int8"}, "layers.3.weight": {"format": "nf4"}, "embeddings.word": cases.INT4})
    model = cases.write(tmp_path / "m.safetensors", arrays)
    report = quantize_checkpoint(model, tmp_path / "out.safetensors", plan=plan, executor=threads)
    cases.assert_quantized(tmp_path / "out.safetensors", arrays, {
        "layers.1.weight": {"format": "int8"}, "layers.3.weight": {"format": "nf4"},
        "embeddings.word.weight": cases.INT4})
    assert [kept["why"] for kept in report["kept"] if kept["name"] == "layers.0.weight"] == ["not in the plan"]


class WeakestISA:
    """An executor that works under this machine's weakest ISA."""

    def submit(self, work, layer):
        future = Future()
        _core.select_isa(qkernels.cpu_info()["supported"][0])
        try:
            future.set_result(work(layer))
        finally:
            _core.select_isa(SELECTED)
        return future


def test_a_worker_of_another_isa(tmp_path, threads):
    """It packs for the layout of the command's machine."""
    model = cases.write(tmp_path / "m.safetensors", cases.tensors(layers=2))
    for name, executor in [("own", threads), ("other", WeakestISA())]:
        quantize_checkpoint(model, tmp_path / f"{name}.safetensors", options=cases.INT4, executor=executor)
    assert (tmp_path / "own.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()


def test_out_is_replaced_in_the_end(tmp_path, threads):
    arrays = cases.tensors()
    model, out = cases.write(tmp_path / "m.safetensors", arrays), tmp_path / "out.safetensors"
    quantize_checkpoint(model, out, options={"format": "int8"}, executor=threads)
    before = out.read_bytes()
    bad = arrays | {"layers.3.weight": np.full((96, 160), np.nan, np.float32)}
    cases.write(tmp_path / "bad.safetensors", bad)
    with pytest.raises(ValueError, match="^layers.3.weight: w: contains NaN"):
        quantize_checkpoint(tmp_path / "bad.safetensors", out, options=cases.INT4, executor=threads)
    assert out.read_bytes() == before
    quantize_checkpoint(model, out, options=cases.INT4, executor=threads)
    cases.assert_quantized(out, arrays, {f"layers.{i}.weight": cases.INT4 for i in range(4)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.safetensors", "m.safetensors", "out.safetensors"]


@pytest.mark.parametrize("error, message, others", [
    (ValueError, "options, plan: takes one", {"options": None}),
    (ValueError, "options, plan: takes one", {"plan": Plan({})}),
    (TypeError, "plan: got dict, takes a Plan", {"options": None, "plan": {}}),
    (ValueError, "plan: layers.0.weight is there twice",
     {"options": None, "plan": Plan({"layers.0": cases.INT4, "layers.0.weight": cases.INT4})}),
    (ValueError, "options: got {}, takes a dict of options", {"options": {}}),
    (ValueError, "options: got the option 'bits'", {"options": {"format": "int8", "bits": 8}}),
    (TypeError, "include: got '.*', takes a list of patterns", {"include": "*"}),
    (TypeError, "exclude: got 'x', takes a list of patterns", {"exclude": "x"}),
    (ValueError, "processes: got 0", {"processes": 0}),
    (ValueError, "processes: not with an executor", {"processes": 1, "executor": WeakestISA()}),
])
def test_bad_arguments(tmp_path, error, message, others):
    model = cases.write(tmp_path / "m.safetensors", cases.tensors(layers=1))
    with pytest.raises(error, match=f"^{message}"):
        quantize_checkpoint(model, tmp_path / "out.safetensors", **{"options": cases.INT4} | others)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("stale", ["first", "last"])
def test_the_index_is_the_authority(tmp_path, stale):
    """Of tensors in two shards that which the index names; those that it does not list are left out, with a warning."""
    arrays, old = cases.tensors(layers=2), cases.tensors(layers=2, seed=1)
    folder = cases.write_shards(tmp_path / "m", arrays)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    other = {"first": "a.safetensors", "last": "z.safetensors"}[stale]
    cases.write(folder / other, {"layers.0.weight": old["layers.0.weight"], "norm.weight": old["norm.weight"],
                                 "unused.weight": old["layers.1.weight"], "new.weight": old["layers.0.weight"]})
    index["weight_map"] |= {"new.weight": other}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with ThreadPoolExecutor(1) as threads, pytest.warns(UserWarning, match="3 tensors that the index does not list"):
        quantize_checkpoint(folder, tmp_path / "out", options=cases.INT4, executor=threads)
    names = ("layers.0.weight", "layers.1.weight", "new.weight")
    cases.assert_quantized(tmp_path / "out", arrays | {"new.weight": old["layers.0.weight"]},
                           dict.fromkeys(names, cases.INT4))  # load has nothing to warn of
    _, errors = cases.finished(cases.command("quantize", folder, tmp_path / "again", "--processes", 1))
    line, = errors.splitlines()
    assert line.endswith(f"{folder}: 3 tensors that the index does not list where they are will be left out")
    index["weight_map"]["unused.weight"] = "model-00001-of-00003.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="unused.weight: is not in model-00001-of-"):
        quantize_checkpoint(folder, tmp_path / "no", options=cases.INT4, executor=threads)
