"""Frozen model files: what machines of two kinds wrote when the format was defined serves everywhere."""

import pathlib
import runpy

import numpy as np
import pytest
from cases import assert_same
from file_cases import assert_same_value

from qkernels import PackedB, QuantizedWeight, _core, linear, load, save

FOLDER = pathlib.Path(__file__).parent / "golden"
MAKE = runpy.run_path(str(FOLDER / "make_files.py"))
FILES = list(MAKE["LAYOUTS"])


@pytest.mark.parametrize("name", FILES)
def test_they_give_the_same_values_and_products(isa, name):
    model, want = load(FOLDER / f"{name}.safetensors"), MAKE["model"]()
    assert list(model) == list(want) and len(model) > 20
    for entry, value in want.items():
        assert_same_value(model[entry], value, entry)
        if isinstance(value, (QuantizedWeight, PackedB)):
            assert_same(MAKE["product"](model[entry], model["x"], model["a"]), model[f"product of {entry}"], entry)


def test_stacks(isa):
    model, want = load(FOLDER / "stacks.safetensors"), MAKE["stacks"]()
    assert list(model) == list(want)
    for entry, value in want.items():
        assert_same_value(model[entry], value, entry)
    for entry in ("experts", "some scaled"):
        for one, product in zip(model[entry], model[f"product of {entry}"], strict=True):
            assert_same(linear(model["x"][:, : one.shape[1]], one), product, entry)


@pytest.mark.parametrize("name", FILES)
def test_their_panels_are_used_where_the_layout_fits(isa, name):
    model, (layout, b_layout) = load(FOLDER / f"{name}.safetensors"), MAKE["LAYOUTS"][name]
    for entry, value in model.items():
        if isinstance(value, QuantizedWeight):
            assert np.shares_memory(value.packed.memory, stored(model, entry)) == (layout == _core.weight_layout())
        elif isinstance(value, PackedB):
            assert np.shares_memory(value.memory, stored(model, entry)) == (b_layout == _core.b_layout())


def stored(model, name):
    """An entry's bytes in the map."""
    return model._files[name].array(name)


@pytest.mark.any_isa
@pytest.mark.parametrize("name", FILES)
def test_their_panels_are_written_again(tmp_path, name):
    """Where the layout is this machine's."""
    path, (layout, b_layout) = FOLDER / f"{name}.safetensors", MAKE["LAYOUTS"][name]
    model = load(path)
    save(tmp_path / "again", model)
    for entry, value in model.items():
        got = stored(load(tmp_path / "again"), entry) if entry in ("int4", "by row", "b") else None
        own = b_layout == _core.b_layout() if entry == "b" else layout == _core.weight_layout()
        if got is not None:
            assert (got.tobytes() == stored(model, entry).tobytes()) == own, entry
    assert 5_000 < path.stat().st_size < 40_000
