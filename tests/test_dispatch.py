"""QKERNELS_ISA, cpu_info, select_isa and `python -m qkernels info`."""

import json
import os
import pathlib
import platform
import subprocess
import sys

import pytest

import qkernels
from qkernels import _core

ISAS = ["scalar", "avx2", "avxvnni", "avx512vnni", "avx512vbmi", "neon", "neon_dotprod", "neon_i8mm"]
INFO = qkernels.cpu_info()
ARCH = "arm" if INFO["arch"] in ("aarch64", "arm64") else INFO["arch"]
CPUINFO_FLAGS = {
    "avx2": "avx2",
    "avx512vnni": "avx512_vnni",
    "avx512vbmi": "avx512_vpopcntdq",
    "neon_dotprod": "asimddp",
    "neon_i8mm": "i8mm",
}
SHOW = "import json, qkernels; print(json.dumps(qkernels.cpu_info()))"


def run(*arguments, isa=None):
    """A fresh interpreter: only there is QKERNELS_ISA read."""
    environment = {key: value for key, value in os.environ.items() if key != "QKERNELS_ISA"}
    if isa is not None:
        environment["QKERNELS_ISA"] = isa
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def expected(name):
    """None when the ISA can be used here, else what the error says."""
    if name not in ISAS:
        return "unknown"
    if name not in INFO["built"]:
        return "not built"
    return None if name in INFO["supported"] else "not supported"


def test_cpu_info():
    assert set(INFO) >= {"arch", "features", "built", "supported", "emulated", "selected", "kernels"}
    assert INFO["arch"] == platform.machine()
    assert all(isinstance(name, str) for name in INFO["features"])
    for names in (INFO["built"], INFO["supported"]):
        assert names == [name for name in ISAS if name in names] and names[0] == "scalar"
    assert set(INFO["supported"]) <= set(INFO["built"]) and set(INFO["emulated"]) <= set(INFO["supported"])
    arm = ARCH == "arm"
    assert arm or not any(name.startswith("neon") for name in INFO["built"])
    assert not arm or (
        "neon" in INFO["supported"] and not any("avx" in name for name in INFO["built"])
    )
    assert INFO["selected"] in INFO["supported"]
    assert len(INFO["kernels"]) >= 10 and set(INFO["kernels"].values()) <= set(INFO["supported"])
    assert json.loads(json.dumps(INFO)) == INFO


def test_features_agree_with_the_kernel():
    """Linux lists what it lets programs use; every supported ISA must be among it."""
    path, title = pathlib.Path("/proc/cpuinfo"), "Features" if ARCH == "arm" else "flags"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [set(line.split()) for line in lines if line.startswith(title)]
    for name, flag in CPUINFO_FLAGS.items():
        # an emulated Arm shows its host's file, which has no such line
        here = name in INFO["supported"] and name not in INFO["emulated"]
        assert not found or not here or flag in found[0], name


@pytest.mark.any_isa  # each ISA is asked for; what this CPU lacks, test_select_isa asks for, too
@pytest.mark.parametrize("name", ISAS)
def test_environment_caps_the_isa(name):
    got, wrong = run("-c", SHOW, isa=name), expected(name)
    if wrong:
        assert got.returncode != 0 and not got.stdout
        last = got.stderr.strip().splitlines()[-1]
        assert "QKERNELS_ISA" in last and repr(name) in last and wrong in last
        assert "scalar" in last  # the message says what could be used
    else:
        info = json.loads(got.stdout)
        assert info["selected"] == name and info["supported"] == INFO["supported"]
        allowed = ISAS[: ISAS.index(name) + 1]
        assert set(info["kernels"].values()) <= set(allowed)
        assert name in info["kernels"].values()


@pytest.mark.any_isa
@pytest.mark.parametrize("name", ["avx9", "AVX2", "scalar,avx2"])
def test_environment_with_an_unknown_name(name):
    got = run("-c", SHOW, isa=name)
    last = got.stderr.strip().splitlines()[-1]
    assert (
        got.returncode != 0 and "QKERNELS_ISA" in last and repr(name) in last and "unknown" in last
    )


@pytest.mark.any_isa
def test_without_the_environment_the_best_is_selected():
    info = json.loads(run("-c", SHOW).stdout)
    assert info["selected"] == info["supported"][-1]


@pytest.mark.parametrize("name", ISAS + ["avx9", "", "Scalar"])
def test_select_isa(name):
    before, wrong = qkernels.cpu_info()["selected"], expected(name)
    try:
        if wrong:
            with pytest.raises(ValueError, match=wrong):
                _core.select_isa(name)
            assert qkernels.cpu_info()["selected"] == before
        else:
            assert _core.select_isa(name) is None
            assert qkernels.cpu_info()["selected"] == name
    finally:
        _core.select_isa(before)


def test_each_isa_brings_its_own_gemm(isa):
    gemms = {slot: name for slot, name in qkernels.cpu_info()["kernels"].items() if "gemm" in slot}
    assert gemms and isa in gemms.values()


@pytest.mark.any_isa
def test_command_line_info():
    got = run("-m", "qkernels", "info")
    assert got.returncode == 0, got.stderr
    best = qkernels.cpu_info()["supported"]
    for word in [INFO["arch"], *INFO["built"], *INFO["kernels"], best[-1]]:
        assert word in got.stdout, word
    unknown = run("-m", "qkernels", "nonsense")
    assert unknown.returncode != 0 and "nonsense" in unknown.stderr
