"""The command line of the benchmark: options, the run, what is written where."""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np

import qkernels
from qkernels._files import FileError, check_results, results_of, write_json

from . import report
from .measure import Crew, measure
from .peers import OTHERS, PEERS
from .suites import PROBLEMS, SUITES
from .workers import serve

SHAPES = Path(__file__).parent / "shapes"
IDLE_LOAD = 0.3  # more than this many busy CPUs disturb


def add_arguments(parser):
    """Add the benchmark's options to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n\n".join(f"products of the suite {name}:\n{_listed(suite.problem.products)}"
                                for name, suite in SUITES.items())
    add = parser.add_argument
    add("--suite", choices=SUITES, default="int8",
        help="whose products and shapes are measured if none are named (default: %(default)s)")
    add("--shapes", nargs="+", choices=sorted(path.stem for path in SHAPES.glob("*.txt")),
        help=f"files of bench/shapes (default: {_defaults('shapes')})")
    add("--shape", type=_positive_int, nargs=3, action="append", metavar=("M", "N", "K"),
        help="instead of files; may be given again")
    add("--product", nargs="+", choices=PROBLEMS, metavar="NAME",
        help=f"see below, of any suite (default: {_defaults('products')})")
    add("--threads", type=_threads, nargs="+", default=[1, _all_cpus()], metavar="N",
        help="numbers of threads, or all (default: 1 all)")
    add("--isa", nargs="+", choices=qkernels.cpu_info()["supported"], default=[qkernels.cpu_info()["selected"]],
        help="of qkernels (default: the best)")
    add("--peers", nargs="*", choices=OTHERS, default=OTHERS, metavar="NAME",
        help=f"other libraries, of {', '.join(OTHERS)} (default: those installed; nothing: none)")
    add("--rounds", type=_positive_int, default=21, help="(default: %(default)s)")
    add("--seconds", type=_positive_float, default=0.02,
        help="that each contender computes in a round (default: %(default)s)")
    add("--json", metavar="FILE", help="write all figures")
    add("--plot", metavar="FILE.png", help="draw a chart (needs matplotlib)")
    add("--worker", nargs=2, help=argparse.SUPPRESS)  # how the benchmark starts its own processes


def run(args):
    """Run the benchmark with parsed arguments and return the exit code."""
    if args.worker:
        return serve(args.worker[0], int(args.worker[1]))
    args.product = args.product or SUITES[args.suite].products
    args.shapes = args.shapes or SUITES[args.suite].shapes
    try:
        check_results(results_of(args, "json", "plot"))
        if args.plot and importlib.util.find_spec("matplotlib") is None:
            raise FileError("--plot: matplotlib is not installed: pip install 'qkernels[bench]'")
        result = describe(args)
        code = 0
        try:
            measure_all(args, result)
        except KeyboardInterrupt:
            print("qkernels bench: interrupted; the lines above are kept", file=sys.stderr)
            code = 130
        for note in report.notes(result["rows"]):
            print(note)
        if args.json:
            write_json(args.json, result)
        if args.plot and result["rows"]:
            from .plot import draw

            draw(args.plot, result)
    except FileError as error:
        print(f"qkernels bench: {error}", file=sys.stderr)
        return 1
    return code


def describe(args):
    """The head of the result: what is measured, where and when. Tells the user, too."""
    asked = [name for name in args.peers if any(map(PEERS[name].offers, args.product))]
    installed = [name for name in asked if all(map(importlib.util.find_spec, PEERS[name].requires))]
    missing = [name for name in asked if name not in installed]
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {_all_cpus()} CPUs; {args.rounds} rounds; GOPS: 1e9 multiplies and adds a second", flush=True)
    for name in missing:
        print(f"{name}: not installed: pip install {' '.join(PEERS[name].requires)}")
    if load > IDLE_LOAD:
        print(f"warning: this machine is not idle: load average {load:.2f}", file=sys.stderr)
    return {
        "qkernels": qkernels.__version__, "python": platform.python_version(), "numpy": np.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(), "cpus": _all_cpus(), "load": load, "info": qkernels.cpu_info(),
        "rounds": args.rounds, "seconds": args.seconds,
        "peers": {name: [f"{package} {importlib.metadata.version(package)}" for package in PEERS[name].requires]
                  for name in installed},
        "missing": missing, "rows": [],
    }


def measure_all(args, result):
    """Add the rows to the result, and show them as they come."""
    shapes = args.shape or [shape for name in args.shapes for shape in read_shapes(name)]
    crews = [(threads, isa) for threads in dict.fromkeys(args.threads) for isa in args.isa]
    with progress(len(crews) * len(args.product) * len(shapes) * args.rounds) as (tick, show):
        for threads, isa in crews:
            with Crew(result["peers"], threads, isa) as crew:
                for product in args.product:
                    show(report.head(product, threads, isa, crew.offering(product)))
                    for shape in shapes:
                        result["rows"].append(measure(crew, product, shape, args.rounds, args.seconds, tick))
                        show(report.line(result["rows"][-1]))


@contextlib.contextmanager
def progress(total):
    """(tick, show): advance a bar, print a line above it. Without tqdm there are the lines alone."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield (lambda: None), partial(print, flush=True)
        return
    with tqdm(total=total, unit="round", leave=False, disable=None) as bar:
        yield bar.update, bar.write


def read_shapes(name):
    """[(M, N, K)] of a file in bench/shapes."""
    lines = (SHAPES / f"{name}.txt").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines if line and not line.startswith("#")]


def cpu_name():
    """The processor as the operating system names it; lscpu knows the names of Arm's cores, too."""
    try:
        text = subprocess.run(["lscpu"], env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True).stdout
    except OSError:
        text = ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("Model name:")]
    return " + ".join(names) or platform.processor() or platform.machine()


def _all_cpus():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _listed(products):
    return "\n".join(f"  {name:<17}{text}" for name, text in products.items())


def _defaults(what):
    return "; ".join(f"{name}: {' '.join(getattr(suite, what))}" for name, suite in SUITES.items())


def _positive_int(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _positive_float(text):
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _threads(text):
    return _all_cpus() if text == "all" else _positive_int(text)
