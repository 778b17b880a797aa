"""What the package found in this machine, and what it chose."""

import platform

from . import _core


def cpu_info():
    """CPU features, ISAs, the kernels in use and the number of threads.

    Returns
    -------
    dict
        arch : str, the machine's architecture;
        features : list of str, the CPU features found, of those that an ISA asks for;
        built, supported : list of str, ISAs in this package / usable on this CPU, weakest first;
        emulated : list of str, ISAs that are computed by other instructions, slowly: in a build for tests, else empty;
        selected : str, the ISA in use (the best supported, or what ``QKERNELS_ISA`` says);
        kernels : dict of str to str, the ISA whose kernel each slot has;
        threads : int, how many a call may use (see `set_num_threads`).
    """
    isas = _core.isas()
    return {
        "arch": platform.machine(),
        "features": [name for name, present in _core.features() if present],
        "built": [name for name, built, _ in isas if built],
        "supported": [name for name, _, supported in isas if supported],
        "emulated": _core.emulated_isas(),
        "selected": _core.selected_isa(),
        "kernels": _core.kernels(),
        "threads": _core.get_num_threads(),
    }
