"""The `isa` fixture: the test runs once under each instruction set that this machine supports.

QKERNELS_ISA caps it: the ISAs up to the one it names are tested.
"""

import pytest

import qkernels
from qkernels import _core

INFO = qkernels.cpu_info()
ISAS = INFO["supported"][: INFO["supported"].index(INFO["selected"]) + 1]


@pytest.fixture(params=ISAS)
def isa(request):
    _core.select_isa(request.param)
    yield request.param
    _core.select_isa(INFO["selected"])
