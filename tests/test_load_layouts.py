"""A file serves under each ISA, whatever layout it was written in."""

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from conftest import ISAS
from file_cases import LAYOUTS, assert_same_value, every_kind, packed_b_memory, save_foreign
from test_save import on_map
from weight_cases import KINDS, MODES, packed, weight

import qkernels
from qkernels import QuantizedWeight, _core, entries, load, pack_b, save


def test_each_isa_reads_the_files_of_each(select_isa, tmp_path):
    x, a = cases.floats(2, (4, 100)), cases.bytes8(3, (4, 100), np.uint8)
    kinds = [kind for kind in KINDS if kind[1] in (None, 64) and kind[3] == "float16"]
    for isa in ISAS:
        select_isa(isa)
        model = {str(kind): packed(weight(seed, 19, 100, *kind)) for seed, kind in enumerate(kinds)}
        model["b"] = pack_b(cases.bytes8(4, (100, 19), np.int8), b_zero_point=cases.ints(5, (19,), -128, 127))
        save(tmp_path / isa, model)
    products = {}
    for writer in ISAS:
        for reader in ISAS:
            select_isa(reader)
            again = load(tmp_path / writer)
            for i, name in enumerate(again):
                value = again[name]
                if name == "b":
                    product = qkernels.int8_gemm(a, value, 0.5, a_zero_point=7)
                    own = again.descriptions[name]["layout"] == entries.layout_id(_core.b_layout())
                    assert on_map(value.memory) == own and value.layout == _core.b_layout()
                else:
                    product = qkernels.linear(x, value, **MODES[i % 3])
                    own = again.descriptions[name]["layout"] == entries.layout_id(_core.weight_layout())
                    assert on_map(value.packed.memory) == own and value.packed.layout == _core.weight_layout()
                assert_same(product, products.setdefault(name, product), (writer, reader, name))


@pytest.mark.parametrize("writer", LAYOUTS)
def test_other_layouts(isa, tmp_path, writer):
    """Those of Arm CPUs on x86 and the other way around: packed anew, and the same in every bit."""
    x, model = cases.floats(2, (4, 70)), every_kind()
    for i, kind in enumerate(KINDS[::7]):
        model[f"w{i}"] = packed(weight(i, 19, 70, *kind))
    save_foreign(tmp_path / "model", model, *LAYOUTS[writer])
    again = load(tmp_path / "model")
    for name, value in model.items():
        assert_same_value(again[name], value, name)
        if isinstance(value, QuantizedWeight):
            assert again[name].packed.memory.tobytes() == value.packed.memory.tobytes(), name
            if value.shape == (19, 70):
                assert_same(qkernels.linear(x, again[name]), qkernels.linear(x, value), name)
    save(tmp_path / "own", again)
    save(tmp_path / "want", model)
    assert (tmp_path / "own").read_bytes() == (tmp_path / "want").read_bytes()


@pytest.mark.parametrize("k, n", [(1, 1), (13, 21), (32, 48), (0, 5), (300, 16)])
def test_the_layout_of_a_packed_b(isa, tmp_path, k, n):
    """What is defined is what is packed; and it comes back from every layout."""
    for dtype in (np.int8, np.uint8):
        low, high = cases.LIMITS[dtype]
        b, zero_point = cases.bytes8(1, (k, n), dtype), cases.ints(2, (n,), low, high, np.int32)
        own = pack_b(b, b_zero_point=zero_point)
        assert packed_b_memory(b, zero_point, own.layout).tobytes() == own.memory.tobytes()
        for _, layout in LAYOUTS.values():
            assert packed_b_memory(b, zero_point, layout).tobytes() == own.repacked(layout).memory.tobytes()
            save_foreign(tmp_path / "b", {"b": own}, None, layout)
            again = load(tmp_path / "b")["b"]
            assert again.memory.tobytes() == own.memory.tobytes() and again.layout == own.layout


@pytest.mark.any_isa
def test_a_foreign_layout_keeps_wrong_values_out(tmp_path):
    """What is packed anew is checked as what is packed for the first time."""
    good = packed(weight(1, 8, 64, "int4", 32, scale_dtype="float32"))
    layout = next(layout for layout in _core.weight_layouts().values() if layout != good.packed.layout)
    memory = np.array(good.repacked(layout).memory)
    where = memory.tobytes().index(good.scales[0, 0].tobytes())
    for bad in (np.nan, -1, 0, np.inf):
        memory[where : where + 4] = np.float32([bad]).view(np.uint8)
        aligned = _core.aligned_memory(len(memory))
        aligned[:] = memory
        with pytest.raises(ValueError, match="scales"):
            QuantizedWeight.from_memory(aligned, "int4", (8, 64), layout, group_size=32, scale_dtype="float32",
                                        has_zero_points=False)


@pytest.mark.any_isa
@pytest.mark.parametrize("wrong", [{"nr": 0}, {"kr": 0}, {"kr": 3}, {"kr": 16}, {"bytes_signed": 2}, {"lanes": 0},
                                   {"lanes": 9}])
def test_layouts_that_cannot_be(wrong):
    qw = packed(weight(1, 8, 64, "codebook4 by row", 32))
    layout = _core.weight_layouts()["neon_dotprod"] | wrong
    raises(ValueError, "layout", qw.repacked, layout)
    raises(ValueError, "layout", qw.packed.size_of, 8, 64, layout)
