"""The `isa` fixture: the test runs once under each instruction set that this machine supports.

QKERNELS_ISA caps it: the ISAs up to the one it names are tested. With --this-isa it is the selected ISA alone, and tests
marked any_isa are left out, unless they take the fixture: for CPUs and ISAs beside one that has run everything.
"""

import pytest

import qkernels
from qkernels import _core

INFO = qkernels.cpu_info()
ISAS = INFO["supported"][: INFO["supported"].index(INFO["selected"]) + 1]


def pytest_addoption(parser):
    parser.addoption("--this-isa", action="store_true", help="only what depends on the ISA, under the selected one")


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        isas = [INFO["selected"]] if metafunc.config.getoption("this_isa") else ISAS
        metafunc.parametrize("isa", isas, indirect=True)


def pytest_collection_modifyitems(config, items):
    if not config.getoption("this_isa"):
        return
    left_out = [item for item in items if item.get_closest_marker("any_isa") and "isa" not in item.fixturenames]
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
