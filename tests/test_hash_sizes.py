"""Plans and reports are the same bytes on every ISA and architecture: frozen digests of their files."""

import hashlib
import json
import math
from concurrent.futures import ThreadPoolExecutor

import cases
import numpy as np
import pytest
from checkpoint_cases import write

from qkernels import _core
from qkernels.decibels import decibels, ratio
from qkernels.mixed import Plan, make_plan
from qkernels.quantize_command import _measured_plan
from qkernels.whole_models import quantize_checkpoint

WEIGHTS = {name: cases.floats(seed, shape) for seed, (name, shape) in enumerate(
    {"query": (33, 96), "up": (70, 64), "down": (9, 200), "head": (130, 40)}.items())}  # fmt: skip
CANDIDATES = [
    {"format": "int8"}, {"format": "int4", "group_size": 32, "symmetric": False}, {"format": "int2", "rotate": True},
    {"format": "ternary", "scale_dtype": "float32"}, {"format": "codebook4", "codebook": "row"}, {"format": "nf4"},
]  # fmt: skip
PLAN = "d972be34b40da0733b0f92f74ef56a244bbf4684ec3a0eeb8dc7a33e47864f14"
MEASURED = "5245523275aedac98c31cd2950b83414d4cc9876abbd6ece6f55154d6b1741e7"
REPORT = "f0d0862c07e208f261220cac44cf2689104ffd2ffad0a7ed91b041c3b84b715c"


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
    plan = Plan({f"{name}.weight": options for name, options in zip(WEIGHTS, CANDIDATES)})
    with ThreadPoolExecutor(1) as executor:
        report = quantize_checkpoint(model, tmp_path / "out.safetensors", plan=plan, executor=executor)
    for layer in report["layers"]:
        assert layer["sqnr"] > 1 and layer["seconds"] > 0
        layer["seconds"] = 1.0
    (tmp_path / "layers.json").write_text(json.dumps(report["layers"]))
    _measured_plan(report, plan).save(tmp_path / "plan.json")
    assert (digest(tmp_path / "layers.json"), digest(tmp_path / "plan.json")) == (REPORT, MEASURED)


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
