"""Plans, reports and files for a named ISA are the same bytes on every ISA and architecture: frozen digests of them."""

import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor

import cases
import numpy as np
import pytest
from checkpoint_cases import write
from file_cases import every_kind

import qkernels
from qkernels import _core
from qkernels.decibels import decibels, ratio
from qkernels.mixed import Plan, make_plan
from qkernels.quantize_command import _measured_plan
from qkernels.whole_models import quantize_checkpoint

WEIGHTS = {name: cases.floats(seed, shape) for seed, (name, shape) in enumerate(
    {"query": (33, 96), "up": (70, 64), "down": (9, 200), "head": (130, 40)}.items())}  # fmt: skip
CANDIDATES = [
    {"format": "int8"}, {"format": "int4", "group_size": 32, "symmetric": False}, {"format": "int2", "rotate": True},
    {"format": "ternary", "scale_dtype": "float32"}, {"format": "log4", "group_size": 32}, {"format": "nf4"},
]  # fmt: skip
EACH = Plan({f"{name}.weight": options for name, options in zip(WEIGHTS, CANDIDATES)})
PLAN = "d972be34b40da0733b0f92f74ef56a244bbf4684ec3a0eeb8dc7a33e47864f14"
MEASURED = "5245523275aedac98c31cd2950b83414d4cc9876abbd6ece6f55154d6b1741e7"
REPORT = "f0d0862c07e208f261220cac44cf2689104ffd2ffad0a7ed91b041c3b84b715c"
ENTRIES = ("int8", "int4.scaled", "int2.rotated", "nf4", "by row", "signs", "ternary", "fast", "fine", "experts", "b",
           "bias")  # of a file
FILES = {  # of `save`, and of `quantize_checkpoint`
    "scalar": ("37142643e70f62455dde6ff63f68c802a69bfc84104d64569a4d3eae4ed56059",
               "45602d8d7766c0efe725535897de5cdf9aedad225f0c678948efc1b615a3c3c3"),
    "avx2": ("55a1ffc75c83254df539931396346804d497ad4c0781e89787a35b3ae98c5cc4",
             "1ee5c25ef6309d59f1604cfc18b8463a7de0aed7fa64c822debdc44077a161a8"),
    "avxvnni": ("2a910b5ed1bfc95d1a157f8ee7c440cc2e87cc5885436efbafe0d4234b7987d8",
                "a28a3d61ff75e2b573c3a40854e30eb1736dee791764560065321710a4f485af"),
    "avx512vnni": ("47721f228cbc5a15cd568998938c0d74e9c094106ca176e1922d706a3b03b900",
                   "64f4ef5d4918b12ca52c61e7dc57ed51f5b7b7c462c4d2319bb651666b2b6aaa"),
    "avx512vbmi": ("c284b12c44368ce24c2070eab0d34adf3e905036d33979e2d988e981cd1c825f",
                   "cbc45f6d12c6309694d00736e76fd0656e504b139c91fe87086b8632babb6d4e"),
    "neon": ("08bd37c502a9598508e873e62fb26faf2b4ad2f63f9381c5524f62d482fa0f13",
             "7233b3a46204356e877cbedbc4a78c68973ce70d0da9fdbb03a5f3fcb93a798d"),
    "neon_dotprod": ("90782f0393fecd310778bf2402661c67cd8fb2b84c74b683a3a412bb92082f94",
                     "87858b53af295659aa6d0cd3fa60db0eab8a5d4c301fb2bba1f0b3c119494b56"),
    "neon_i8mm": ("909b69b36aef7cb32852b74572e3c95b90ab90d600e4ea730352410f025d8a31",
                  "39578baeefe420fc6260f7be4741dce508934a724531f4af85c38c889389908a"),
}  # fmt: skip


def largest_error(made):
    """Of a weight: a measure without sums, whose order processors might choose."""
    ((name, qw),) = made.items()
    return float(np.abs(WEIGHTS[name] - qw.dequantize()).max())


def digest(*paths):
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def test_plan(isa, tmp_path):
    paths, table, used = [], {}, set()
    for bits in (4.25, 5, 6.5):
        plan = make_plan(WEIGHTS, CANDIDATES, budget_bits=bits, measure=largest_error, table=table)
        used |= {options["format"] for options in plan.layers.values()}
        paths.append(tmp_path / f"{bits}.json")
        plan.save(paths[-1])
    assert len(used) > 3
    assert digest(*paths) == PLAN


def test_report(isa, tmp_path):
    """What is measured, and the plan that holds it; not the time, nor the machine."""
    model = write(tmp_path / "m.safetensors", {f"{name}.weight": w for name, w in WEIGHTS.items()})
    with ThreadPoolExecutor(1) as executor:
        report = quantize_checkpoint(model, tmp_path / "out.safetensors", plan=EACH, executor=executor)
    for layer in report["layers"]:
        assert layer["sqnr"] > 1 and layer["seconds"] > 0
        layer["seconds"] = 1.0
    (tmp_path / "layers.json").write_text(json.dumps(report["layers"]))
    _measured_plan(report, EACH).save(tmp_path / "plan.json")
    assert (digest(tmp_path / "layers.json"), digest(tmp_path / "plan.json")) == (REPORT, MEASURED)


@pytest.mark.parametrize("name", FILES)
def test_files_for_every_isa(isa, tmp_path, monkeypatch, name):
    """Each machine writes what that of the ISA writes, which writes the same when it is not told for which."""
    monkeypatch.setattr(qkernels, "__version__", "frozen")  # a file says who wrote it
    kinds = {entry: value for entry, value in every_kind().items() if entry in ENTRIES}
    qkernels.save(tmp_path / "model", kinds, layout=name)
    model = write(tmp_path / "m.safetensors", {f"{name}.weight": w for name, w in WEIGHTS.items()})
    with ThreadPoolExecutor(1) as executor:
        report = quantize_checkpoint(model, tmp_path / "out.safetensors", plan=EACH, executor=executor, layout=name)
        if isa == name:
            quantize_checkpoint(model, tmp_path / "own.safetensors", plan=EACH, executor=executor)
            qkernels.save(tmp_path / "own", kinds)
            assert digest(tmp_path / "own") == digest(tmp_path / "model")
            assert digest(tmp_path / "own.safetensors") == digest(tmp_path / "out.safetensors")
    assert report["isa"] == name
    assert (digest(tmp_path / "model"), digest(tmp_path / "out.safetensors")) == FILES[name]


@pytest.mark.any_isa
def test_all_isas_have_files():
    assert list(FILES) == list(_core.weight_layouts())


@pytest.mark.any_isa
def test_energy_and_decibels():
    """Correct to the last digit or the one before."""
    for n in (0, 1, 15, 16, 17, 1000):
        x = cases.floats(n, (n,)) * np.float32(1e25)
        assert _core.energy(x) == pytest.approx(math.fsum(float(value) ** 2 for value in x), rel=1e-15)
    for exponent in range(-300, 301, 7):
        x = float(f"1.37e{exponent}")
        assert decibels(x) == pytest.approx(10 * math.log10(x), rel=1e-15)
        assert ratio(decibels(x)) == pytest.approx(x, rel=1e-12)
    assert (decibels(1.0), decibels(100.0), ratio(0.0), ratio(-20.0)) == (0.0, 20.0, 1.0, 0.01)
