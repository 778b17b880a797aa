"""The `isa` fixture: the test runs once under each instruction set that this machine supports.

QKERNELS_ISA caps it: the ISAs up to the one it names are tested. Two options are for runs beside one of everything. With
--this-isa it is the selected ISA alone, and tests marked any_isa are left out, unless they take the fixture: for another CPU, or
another build. --weaker-isa leaves out all that take the fixture, too: for an ISA that the same build has run them under.
"""

import pytest

import qkernels
from qkernels import _core

INFO = qkernels.cpu_info()
ISAS = INFO["supported"][: INFO["supported"].index(INFO["selected"]) + 1]


def pytest_addoption(parser):
    parser.addoption("--this-isa", action="store_true", help="only what depends on the ISA, under the selected one")
    parser.addoption("--weaker-isa", action="store_true", help="the same, less what a run under a better ISA has done")


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        isas = [INFO["selected"]] if metafunc.config.getoption("this_isa") else ISAS
        metafunc.parametrize("isa", isas, indirect=True)


def pytest_collection_modifyitems(config, items):
    weaker = config.getoption("weaker_isa")
    if not weaker and not config.getoption("this_isa"):
        return
    left_out = [item for item in items
                if (weaker if "isa" in item.fixturenames else item.get_closest_marker("any_isa"))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def isa(request, select_isa):
    select_isa(request.param)
    return request.param


@pytest.fixture
def select_isa():
    """For tests that go from ISA to ISA; afterwards it is the one that was there."""
    yield _core.select_isa
    _core.select_isa(INFO["selected"])
