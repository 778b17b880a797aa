"""The thread pool where processes fork, are started by multiprocessing, are interrupted, or end while it works."""

import multiprocessing
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.any_isa  # its products are only work for the pool

# Each script runs in an interpreter of its own, because it ends that or has children.
START = """
import atexit, os, signal, sys, threading, time, warnings
import numpy as np
import qkernels

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of fork in a process with threads
a, b = np.full((300, 500), 3, np.int8), np.full((500, 700), -5, np.int8)

def product():
    assert (qkernels.int8_gemm(a, b) == -7500).all()

def forever():
    while True:
        product()

def in_children(count):
    for _ in range(count):
        child = os.fork()
        if not child:
            product()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

qkernels.set_num_threads(4)
"""

MULTIPROCESSING = """
import multiprocessing

if __name__ == "__main__":
    product()
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        pool.apply(product)
        pool.starmap(product, [()] * 30, chunksize=1)
    product()
"""


def run(code):
    """Fail unless the script ends well, and in time."""
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_fork():
    run("product(); in_children(10); product()")


def test_fork_before_the_first_product():
    run("in_children(3); product()")


def test_fork_while_another_thread_computes():
    run("threading.Thread(target=forever, daemon=True).start(); time.sleep(0.05); in_children(30)")


def test_grandchildren():
    run("""
product()
child = os.fork()
product()
in_children(3)
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""")


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(method, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(START + MULTIPROCESSING)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_exit_after_products():
    run("product()")


@pytest.mark.parametrize("threads", [1, 4])
def test_exit_while_daemon_threads_compute(threads):
    run(f"""
for _ in range({threads}):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
""")


def test_products_at_exit():
    run("product(); atexit.register(product)")


def test_exit_from_another_thread():
    run("""
threading.Thread(target=forever, daemon=True).start()
threading.Timer(0.05, os._exit, [0]).start()
forever()
""")


def test_interrupt():
    """Ctrl-C reaches Python, though other threads are at work."""
    code = START + """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits "ignore"
product()
print("ready", flush=True)
forever()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=300)
    assert child.returncode != 0 and errors.strip().endswith("KeyboardInterrupt")


def test_timer_signals():
    """A handler runs on the main thread, between its products."""
    run("""
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(threading.get_ident()))
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
while len(seen) < 20:
    product()
signal.setitimer(signal.ITIMER_REAL, 0)
assert set(seen) == {threading.main_thread().ident}
""")
