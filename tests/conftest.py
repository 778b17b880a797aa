"""The `isa` fixture: the test runs once under each instruction set that this machine supports."""

import pytest

import qkernels
from qkernels import _core


@pytest.fixture(params=qkernels.cpu_info()["supported"])
def isa(request):
    before = qkernels.cpu_info()["selected"]
    _core.select_isa(request.param)
    yield request.param
    _core.select_isa(before)
