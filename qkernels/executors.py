"""Where the layers of a checkpoint are quantized: in processes of this machine, or those of a Dask cluster."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection

# A thread each, that results depend on nothing but the input: the last bits of a BLAS product depend on its threads.
_ONE_THREAD = dict.fromkeys(("QKERNELS_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# And the C library keeps what one layer gave back for the next: new pages cost as much as reading the layer does.
_KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
OF_PROCESSES = _ONE_THREAD | _KEPT_MEMORY

CONNECT_SECONDS = 10


@contextmanager
def local_processes(count):
    """Processes of one thread each.

    Parameters
    ----------
    count : int

    Yields
    ------
    concurrent.futures.ProcessPoolExecutor
        Its processes end when this one does, however it ends, and at once when an exception leaves the block.
    """
    others, before = multiprocessing.active_children(), {name: os.environ.get(name) for name in OF_PROCESSES}
    executor = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _prepare)
    os.environ.update(OF_PROCESSES)  # which processes take over when they start, before they import NumPy
    try:
        yield executor
    except BaseException:
        for child in multiprocessing.active_children():
            if child not in others:
                child.kill()
        raise
    finally:
        for name, text in before.items():
            os.environ.pop(name, None) if text is None else os.environ.update({name: text})
        executor.shutdown(cancel_futures=True)


def _prepare():
    """In a new process: leave Ctrl-C to the one that started it, and end when that one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent):
    connection.wait([parent.sentinel])
    os._exit(1)


@contextmanager
def dask_executor(address):
    """The workers of a Dask cluster.

    Parameters
    ----------
    address : str
        Of its scheduler.

    Yields
    ------
    concurrent.futures.Executor

    Raises
    ------
    ImportError
        distributed is not installed.
    OSError
        There is no scheduler at this address.
    concurrent.futures.BrokenExecutor
        Layers were given up, because the workers that had them were killed several times.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise ImportError("--dask needs distributed: pip install 'qkernels[dask]'") from None
    with Client(address, timeout=CONNECT_SECONDS) as client:
        executor = client.get_executor(pure=False)
        try:
            yield executor
        except KilledWorker as error:
            raise BrokenExecutor(" ".join(str(error).split())) from None
        finally:
            executor.shutdown(wait=False)
