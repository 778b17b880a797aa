"""Frozen vectors: what every operation gave when the contract was written."""

import pathlib
import runpy

import numpy as np
import pytest
from cases import assert_same

import qkernels
from qkernels import ref

FOLDER = pathlib.Path(__file__).parent / "golden"
MAKE = runpy.run_path(str(FOLDER / "make.py"))
FAMILIES = ["affine", "packing", "hadamard", "gemm", "requant", "weights", "formats"]


def replay(module, family):
    stored = MAKE["load"](FOLDER / f"{family}.npz")
    for name, (function, options, values, want) in stored.items():
        got = MAKE["call"](module, function, values, options)
        assert len(got) == len(want) > 0, name
        for g, w in zip(got, want):
            assert_same(g, w, name)
    return stored


@pytest.mark.parametrize("family", FAMILIES)
def test_the_package_reproduces_them(isa, family):
    replay(qkernels, family)


@pytest.mark.any_isa
@pytest.mark.parametrize("family", FAMILIES)
def test_the_oracle_reproduces_them(family):
    stored = replay(ref, family)
    made = {name: values for name, _, values, _ in MAKE[family]()}
    assert list(stored) == list(made)
    for name, (_, _, values, _) in stored.items():
        for key, value in made[name].items():
            assert_same(values[key], np.asarray(value), (name, key))


def test_they_stay_small():
    sizes = [(FOLDER / f"{family}.npz").stat().st_size for family in FAMILIES]
    assert 10_000 < sum(sizes) < 200_000
