"""Products measured in rounds, in which all contenders take turns."""

import numpy as np

from .peers import PEERS, Bandwidth, Peak, Qkernels
from .suites import PROBLEMS
from .workers import Worker, WorkerError

FEW_ROWS = 4  # up to so many rows, reading B is what a product waits for


class Crew:
    """The workers of one ISA and number of threads, started when they are first needed."""

    def __init__(self, others, threads, isa):
        self.others, self.threads, self.isa = others, threads, isa
        self._workers = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self._workers.values():
            worker.close()

    def offering(self, product):
        """The names of those that can do a product, ourselves first."""
        return [name for name in (Qkernels.name, *self.others) if PEERS[name].offers(product)]

    def ask(self, name, **request):
        """Ask a worker; one that has died is replaced at the next request."""
        if name not in self._workers:
            self._workers[name] = Worker(name, self.threads, self.isa)
        try:
            return self._workers[name].ask(**request)
        except WorkerError:
            if self._workers[name].process.poll() is not None:
                self._workers.pop(name).close()
            raise


def middle(values):
    """Median, and the width of the middle half in percent of it."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return float(median), float(100 * (high - low) / median)


def measure(crew, product, shape, rounds, seconds, tick=lambda: None):
    """One row of the result.

    Parameters
    ----------
    crew : Crew
    product : str
        Of `suites.PROBLEMS`.
    shape : (int, int, int)
        M, N, K.
    rounds : int
    seconds : float
        A contender's turn in a round.
    tick : callable
        Called after each round.

    Returns
    -------
    dict
        Ready for JSON: "results" has for each contender its speed (GOPS, or GB/s of bandwidth) or its error; then
        figures of qkernels relative to the machine and to the best rival, medians over the rounds of the ratio
        within a round, None where they do not apply.
    """
    problem = PROBLEMS[product](product, shape)
    asked = [*crew.offering(product), Peak.name]
    if problem.m <= FEW_ROWS:
        asked.append(Bandwidth.name)
    results, work = {}, {}
    for name in asked:
        try:
            answer = crew.ask(name, do="prepare", product=product, shape=shape, seconds=seconds)
            work[name] = answer["work"]
            results[name] = {"a_bits": answer["a_bits"], "rounds": []}
        except WorkerError as error:
            results[name] = {"error": str(error)}
    for r in range(rounds):
        for name in asked if r % 2 == 0 else reversed(asked):
            if "error" in results[name]:
                continue
            try:
                speed = work[name] / crew.ask(name, do="run")["seconds"] / 1e9
                results[name]["rounds"].append(speed)
            except WorkerError as error:
                results[name] = {"error": str(error)}
        tick()
    for result in results.values():
        if "error" not in result:
            result["speed"], result["spread_percent"] = middle(result["rounds"])
    return {"isa": crew.isa, "threads": crew.threads, "product": product, "m": problem.m, "n": problem.n,
            "k": problem.k, "b_bytes": problem.b_bytes, "results": results, **relative(results, problem)}


def relative(results, problem):
    """How qkernels stands: figures for `measure`."""
    figures = {"of_peak": None, "of_bandwidth": None, "best_rival": None, "ratio": None}
    speeds = {name: np.array(result["rounds"]) for name, result in results.items() if "error" not in result}
    own = speeds.get(Qkernels.name)
    if own is None:
        return figures
    if Peak.name in speeds:
        figures["of_peak"] = float(np.median(own / speeds[Peak.name]))
    if Bandwidth.name in speeds:
        calls = own / problem.operations
        figures["of_bandwidth"] = float(np.median(calls * problem.b_bytes / speeds[Bandwidth.name]))
    rivals = [name for name in speeds if PEERS[name].is_rival]
    if rivals:
        best = max(rivals, key=lambda name: results[name]["speed"])
        figures["best_rival"], figures["ratio"] = best, float(np.median(own / speeds[best]))
    return figures
