"""Statistics and observers that several threads fill, merge and read at once: nothing is lost, nothing counted twice."""

import sys
import threading

import cases
import numpy as np
import pytest
from cases import assert_same

from qkernels.calibration import HistogramObserver, InputStatistics, MinMaxObserver, MovingAverageObserver

pytestmark = pytest.mark.any_isa

K = 16
BATCHES = [cases.ints(seed, (50, K), -3, 4).astype(np.float32) for seed in range(400)]  # all sums of them are exact
MAKERS = {
    "statistics": lambda: InputStatistics(K),
    "minmax": lambda: MinMaxObserver(axis=1),
    "moving average": lambda: MovingAverageObserver(axis=1),
    "histogram": lambda: HistogramObserver(16, axis=1),
}


@pytest.fixture(autouse=True)
def threads_take_turns_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*works):
    """Run functions in threads of their own; what one raises is raised."""
    errors = []

    def guarded(work):
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_is_lost(kind):
    """Some threads observe, one merges what it has observed by itself, one reads."""
    seen, whole, read = MAKERS[kind](), MAKERS[kind](), []
    for batch in BATCHES:
        whole.observe(batch)

    def observe(part):
        for batch in BATCHES[part::4]:
            seen.observe(batch)

    def merge(part):
        for batch in BATCHES[part::4]:
            seen.merge(MAKERS[kind]().observe(batch))

    def read_states():
        for _ in range(50):
            read.append(seen.to_state())

    together(*(lambda part=part: observe(part) for part in range(3)), lambda: merge(3), read_states)
    got, want = seen.to_state(), whole.to_state()
    for name, entry in want.items():
        if kind != "moving average" or name == "count":  # which depends on the order
            assert_same(got[name], entry, name)
    rows = np.concatenate(BATCHES).astype(np.float64)
    for state in read:  # each is of one moment
        if kind == "statistics":
            assert np.trace(state["products"]) <= 9 * K * state["count"] and state["count"] % len(BATCHES[0]) == 0
        if kind == "histogram" and state["count"]:
            assert state["counts"].sum() == state["count"]
    if kind == "statistics":
        assert_same(got["products"], rows.T @ rows)
        assert_same(seen.hessian, rows.T @ rows / len(rows))


@pytest.mark.parametrize("kind", MAKERS)
def test_two_that_are_merged_with_each_other(kind):
    """At the same time, and with themselves: no thread waits for ever."""
    first, second = (MAKERS[kind]().observe(batch) for batch in BATCHES[:2])
    together(*(lambda pair=pair: [pair[0].merge(pair[1]) for _ in range(12)]
               for pair in [(first, second), (second, first)]))
    assert first.merge(first).count % 2 == 0
