"""The list of all layouts: of the selected ISA what its kernels take, and rows for the ISAs of other machines."""

from qkernels import _core

NAMES = [name for name, _, _ in _core.isas()]


def test_the_selected_isa_takes_what_is_listed(isa):
    assert _core.b_layouts()[isa] == _core.b_layout()
    assert _core.weight_layouts()[isa] == _core.weight_layout()


def test_every_isa_is_listed():
    for layouts, own in ((_core.b_layouts(), _core.b_layout()), (_core.weight_layouts(), _core.weight_layout())):
        assert list(layouts) == NAMES
        for name, layout in layouts.items():
            assert list(layout) == list(own), name
            assert all(type(value) is int and 0 <= value <= 255 for value in layout.values()), name
            assert layout["nr"] and layout["kr"] and layout["bytes_signed"] in (0, 1), name
