"""How many threads a call computes on: one number for the whole process."""

import contextlib
import math
import os

from . import _arguments as arguments
from . import _core


def get_num_threads():
    """The number of threads that one call may use.

    Returns
    -------
    int
        At least 1, the thread that makes the call among them. At import it is what ``QKERNELS_NUM_THREADS`` says, and
        without that the number of CPUs that the process may use, by its affinity and by the CPU quota of its cgroup
        (rounded up).
    """
    return _core.get_num_threads()


def set_num_threads(n):
    """Set the number of threads that one call may use, in all Python threads of this process.

    Parameters
    ----------
    n : int
        1 to 1024; 1 computes on the calling thread alone.

    Raises
    ------
    TypeError
        n is not an integer.
    ValueError
        n is out of range.

    Notes
    -----
    Results do not depend on it. Small work stays on fewer threads. The threads are shared: of several calls at the same
    time one has them, and the others compute on the threads that made them. Idle threads use no CPU time. A forked
    child keeps the number, and starts threads of its own.
    """
    _core.set_num_threads(arguments.scalar(n, "n", 1, _core.MAX_THREADS))


@contextlib.contextmanager
def num_threads(n):
    """A context in which one call may use n threads.

    Parameters
    ----------
    n : int
        As `set_num_threads` takes it, and like that for all Python threads of this process.

    Yields
    ------
    None
        On leaving, the number is again what it was on entering.

    Examples
    --------
    >>> before = get_num_threads()
    >>> with num_threads(1):
    ...     get_num_threads()
    1
    >>> get_num_threads() == before
    True
    """
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        _core.set_num_threads(before)


def available_cpus(proc="/proc/self", cgroups="/sys/fs/cgroup"):
    """How many CPUs this process may use: by its affinity, and by the CPU quotas of its cgroup and all above it."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([affinity, *_quotas(proc, cgroups)])))


def _quotas(proc, cgroups):
    """In CPUs; from the files of cgroups version 2 and 1, which a machine may have side by side."""
    for line in _read(f"{proc}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, files = cgroups, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            folder, files = f"{cgroups}/cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        for name in path.rstrip("/").split("/"):  # the first is empty: the root
            folder = f"{folder}/{name}" if name else folder
            numbers = " ".join(_read(f"{folder}/{file}") for file in files).split()
            if len(numbers) == 2 and numbers[0].isdecimal():  # not "max" or -1
                yield int(numbers[0]) / int(numbers[1])


def _read(path):
    """The text of a file; empty where there is none, as for cgroups that only a container's host sees."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def _initial():
    """What QKERNELS_NUM_THREADS says, else the CPUs there are."""
    text = os.environ.get("QKERNELS_NUM_THREADS")
    if not text:
        return min(available_cpus(), _core.MAX_THREADS)
    if not text.isdecimal() or not 1 <= int(text) <= _core.MAX_THREADS:
        raise ValueError(f"QKERNELS_NUM_THREADS: got {text!r}, takes 1 to {_core.MAX_THREADS}")
    return int(text)


_core.set_num_threads(_initial())
