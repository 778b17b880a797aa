"""quantize of the experts of a layer, stacks of weights [E, N, K] in one tensor."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import checkpoint_cases as cases
import numpy as np
import pytest
from file_cases import assert_same_value

import qkernels
from qkernels import QuantizedWeightStack, whole_models
from qkernels.__main__ import main
from qkernels.calibration import InputStatistics
from qkernels.methods import CALIBRATED
from qkernels.mixed import Plan
from qkernels.quantize_layer import quantize_layer
from qkernels.whole_models import quantize_checkpoint

pytestmark = pytest.mark.any_isa
E, N, K = 5, 24, 64
UP, DOWN = "layers.0.mlp.experts.gate_up_proj", "layers.0.mlp.experts.down_proj"
INT4 = {"format": "int4", "group_size": 32}


def experts():
    """Two stacks, and what else lies beside them."""
    rng = np.random.default_rng(0)
    shapes = {UP: (E, 2 * N, K), DOWN: (E, N, K), "layers.0.mlp.experts.gate_up_proj_bias": (E, 2 * N),
              "layers.0.self_attn.q_proj.weight": (K, K), "layers.0.mlp.router.weight": (E, K),
              "patches.conv.weight": (8, 32, 3), "layers.0.mlp.experts.scale": (E,), "kernel.weight": (2, 2, 3, 32)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def quantize(folder, arrays, options=INT4, **others):
    """The report, and the model that comes of it."""
    model = cases.write(folder / "m.safetensors", arrays)
    with ThreadPoolExecutor(2) as threads:
        report = quantize_checkpoint(model, folder / "out.safetensors", options=options, executor=threads, **others)
    return report, qkernels.load(folder / "out.safetensors")


@pytest.mark.parametrize("options", [
    INT4, {"format": "int8", "rotate": True}, {"format": "codebook4", "codebook": "row"}, {"format": "trellis2"},
    {"format": "int4", "group_size": 32, "symmetric": False, "method": "hqq"}],
    ids=lambda options: "-".join(map(str, options.values())))  # fmt: skip
def test_stacks(tmp_path, options):
    """They are those of quantize_weight; a line in the report is that of a whole stack."""
    arrays = experts()
    report, model = quantize(tmp_path, arrays, options)
    layers = {layer["name"]: layer for layer in report["layers"]}
    assert list(layers) == [UP, DOWN, "layers.0.self_attn.q_proj.weight"] and set(model) == set(arrays)
    for name in (UP, DOWN):
        stack = model[name]
        assert_same_value(stack, qkernels.quantize_weight(arrays[name], **options), name)
        layer, w = layers[name], arrays[name].astype(np.float64)
        noise = np.square(w - stack.dequantize()).sum()
        assert layer["sqnr"] == pytest.approx(10 * np.log10(np.square(w).sum() / noise), abs=1e-3)
        assert layer["shape"] == list(w.shape) and layer["bytes"] == stack.nbytes and layer["seconds"] > 0
        assert layer["bits"] == stack.bits_per_weight and layer["float_bytes"] == 4 * w.size and "others" not in layer
    whys = {kept["name"]: kept["why"] for kept in report["kept"]}
    assert whys.pop("layers.0.mlp.router.weight").startswith("router")
    assert whys == {"layers.0.mlp.experts.gate_up_proj_bias": "not included", "layers.0.mlp.experts.scale": "1-D",
                    "patches.conv.weight": "3-D, and no stack of experts by its name", "kernel.weight": "4-D"}
    json.dumps(report, allow_nan=False)


def test_which_are_included(tmp_path):
    arrays = experts()
    for include, others in [(["*experts*"], {UP, DOWN}), (["*"], {UP, DOWN, "layers.0.self_attn.q_proj.weight",
                                                                  "layers.0.mlp.router.weight"}),
                            (["patches.conv.weight"], {"patches.conv.weight"}), (["*.gate_up_proj_bias"], set()),
                            ([DOWN, "layers.0.mlp.experts.gate_up_proj_bias"], {DOWN, UP + "_bias"})]:  # fmt: skip
        report, model = quantize(tmp_path, arrays, include=include)
        assert {layer["name"] for layer in report["layers"]} == others, include
        assert all(isinstance(model[name], QuantizedWeightStack) == (arrays[name].ndim == 3) for name in others)
    granite = {f"layers.0.block_sparse_moe.{name}_linear.weight": arrays[UP] for name in ("input", "output")}
    assert len(quantize(tmp_path, granite)[0]["layers"]) == 2
    report, model = quantize(tmp_path, arrays, None, plan=Plan({"patches.conv": {"format": "int8"}, UP: INT4}))
    assert model["patches.conv.weight"].shape == (8, 32, 3) and model[UP].format == "int4"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_shards_and_other_floats(tmp_path, dtype):
    arrays = {name: x.astype(dtype) for name, x in experts().items()}
    source = cases.write_shards(tmp_path / "m", arrays)
    with ThreadPoolExecutor(2) as threads:
        quantize_checkpoint(source, tmp_path / "out", options=INT4, executor=threads)
    model = qkernels.load(tmp_path / "out")
    for name in (UP, DOWN):
        assert_same_value(model[name], qkernels.quantize_weight(arrays[name].astype(np.float32), **INT4), name)


def statistics(arrays):
    """Of each expert of both stacks, but of expert 2 of the first; expert 4 of the second has seen nothing."""
    rng = np.random.default_rng(1)
    seen = {f"{name}.{e}": InputStatistics(K).observe(rng.normal(size=(9 * e + 1, K)).astype(np.float32))
            for name in (UP, DOWN) for e in range(E)}
    del seen[f"{UP}.2"]
    seen[f"{DOWN}.4"] = InputStatistics(K)
    return seen | {"layers.0.self_attn.q_proj": seen[f"{UP}.3"]}


@pytest.mark.parametrize("method", CALIBRATED)
def test_calibration_by_expert(tmp_path, method):
    arrays, options = experts(), INT4 | {"method": method}
    seen = statistics(arrays)
    qkernels.save(tmp_path / "seen", seen)
    with pytest.raises(ValueError, match=rf"lacks {UP}\.2, and has seen no rows of {DOWN}\.4; "):
        quantize(tmp_path, arrays, options, calibration=tmp_path / "seen")
    with pytest.warns(UserWarning, match=rf"rtn: {UP}\.2, {DOWN}\.4$"):
        report, model = quantize(tmp_path, arrays, options, calibration=tmp_path / "seen", fallback="rtn")
    for name, without in ((UP, 2), (DOWN, 4)):
        given = [None if e == without else seen[f"{name}.{e}"] for e in range(E)]
        want = qkernels.quantize_weight(arrays[name], **options, calibration=given)
        assert_same_value(model[name], want, name)
        layer, = (layer for layer in report["layers"] if layer["name"] == name)
        assert layer["of"] == f"int4, group_size 32, method {method}"
        assert layer["others"] == {"int4, group_size 32": [without]} and layer["bytes"] == want.nbytes
    assert main(["inspect", str(tmp_path / "out.safetensors"), "--verify"]) == 0


def test_a_stack_without_any_statistics(tmp_path):
    """The plan says then what its method is."""
    arrays = {name: x for name, x in experts().items() if name in (UP, DOWN)}
    qkernels.save(tmp_path / "seen", {name: s for name, s in statistics(arrays).items() if UP in name})
    with pytest.warns(UserWarning, match="6 of 10 weights"):
        report, model = quantize(tmp_path, arrays, INT4 | {"method": "awq"}, calibration=tmp_path / "seen",
                                 fallback="rtn")
    assert [layer["of"] for layer in report["layers"]] == ["int4, group_size 32, method awq", "int4, group_size 32"]
    assert_same_value(model[DOWN], qkernels.quantize_weight(arrays[DOWN], **INT4))


def test_goes_on_in_the_middle_of_a_stack(tmp_path, monkeypatch):
    model, arrays, lines, names = tmp_path / "m.safetensors", experts(), [], []
    cases.write(model, arrays)

    def stopping(layer):
        names.append(layer.name)
        if len(names) == 4:
            raise OSError("stopped")
        return quantize_layer(layer)

    monkeypatch.setattr(whole_models, "quantize_layer", stopping)
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(OSError, match=r"experts\.gate_up_proj\.[0-9]: stopped"):
            quantize_checkpoint(model, tmp_path / "out.safetensors", options=INT4, executor=threads)
        done = tmp_path.joinpath("out.safetensors.journal").read_text().count('"layer"')
        quantize_checkpoint(model, tmp_path / "out.safetensors", options=INT4, executor=threads, say=lines.append)
    assert lines == [f"{done} of {2 * E + 1} layers are done already: goes on"] and 3 <= done < 2 * E
    assert_same_value(qkernels.load(tmp_path / "out.safetensors")[UP], qkernels.quantize_weight(arrays[UP], **INT4))


def test_the_command_says_how_much_stays(tmp_path, capsys):
    arrays = experts()
    model = cases.write(tmp_path / "m.safetensors", arrays | {"table": np.zeros((1000, K), np.float32)})
    for more in (["--dry-run"], ["--processes", "1", "--report", str(tmp_path / "page.html")]):
        assert main(["quantize", str(model), str(tmp_path / "out.safetensors"), *more]) == 0
        out, errors = capsys.readouterr()
        kept = sum(x.nbytes for name, x in arrays.items() if name not in (UP, DOWN) and "q_proj" not in name) + 256000
        share = f"{100 * kept / (sum(x.nbytes for x in arrays.values()) + 256000):.0f} % of the bytes"
        assert f"6 tensors kept, 0.3 MB, {share}" in out
        assert errors == f"qkernels quantize: {model}: {share} stay as they are; --dry-run and reports say why\n"
    assert "5 × 24 × 64" in (tmp_path / "page.html").read_text("utf-8")
    capsys.readouterr()
    assert main(["quantize", str(model), str(tmp_path / "out.safetensors"), "--exclude", "table"]) == 0
    assert not capsys.readouterr().err


def test_memory_of_an_expert(tmp_path):
    """Not that of the stack."""
    count, n, k = 24, 2048, 2048
    stack = np.random.default_rng(0).standard_normal((count, n, k), np.float32)
    model = cases.write(tmp_path / "m.safetensors", {"mlp.experts.down_proj": stack})
    measured = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); " \
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    out = subprocess.run([sys.executable, "-c", measured, sys.executable, "-m", "qkernels", "quantize", model,
                          tmp_path / "out.safetensors"], cwd=cases.ROOT, check=True, capture_output=True, text=True)
    assert int(out.stdout.splitlines()[-1]) * 1024 < 4 * 4 * n * k + 200e6 < stack.nbytes
