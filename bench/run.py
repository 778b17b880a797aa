"""Speed of `int8_gemm` with a packed right-hand side, one thread, against the peak of the kernel's own instructions.

Each line is measured in rounds that take turns between the product and an in-register loop of the multiply instructions
that its kernel uses, so that a drifting clock touches both: median over the rounds, and the spread (the middle half of
them) in percent. 1 op is one multiply or one add. Run it on a quiet machine.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np

import qkernels
from qkernels import _core

SHAPES = Path(__file__).parent / "shapes"
OUTPUTS = {
    "int32": {},
    "float32": {"scales": 0.01},
    "int8": {"scales": 0.01, "out_dtype": "int8", "out_scale": 0.1},
    "fixed": {"scales": 0.01, "out_dtype": "int8", "out_scale": 0.1, "requant": "fixed"},
}


def cpu_name():
    """The processor as the operating system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read_shapes(name):
    """[(M, N, K)] of a file in bench/shapes."""
    lines = (SHAPES / f"{name}.txt").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines if line and not line.startswith("#")]


def seconds_of(call, calls):
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def calls_in(call, seconds):
    """How many calls take about so long."""
    call()
    once = seconds_of(call, 1)
    return max(1, round(seconds / max(once, 1e-7)))


def middle(values):
    """Median, and the width of the middle half in percent of it."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return median, 100 * (high - low) / median


def measure(shape, output, rounds, seconds):
    """GOPS of one product and of the peak loop, round by round."""
    m, n, k = shape
    rng = np.random.default_rng(0)
    a = rng.integers(-128, 128, (m, k)).astype(np.int8)
    b = qkernels.pack_b(rng.integers(-128, 128, (k, n)).astype(np.int8))

    def product():
        qkernels.int8_gemm(a, b, **OUTPUTS[output])

    peak_rounds = calls_in(lambda: _core.gemm_peak(1000), seconds / 4) * 1000
    calls = calls_in(product, seconds)
    gops, peaks = [], []
    for _ in range(rounds):
        gops.append(2 * m * n * k / seconds_of(product, calls) / 1e9)
        start = time.perf_counter()
        done = _core.gemm_peak(peak_rounds)
        peaks.append(2 * done / (time.perf_counter() - start) / 1e9)
    median, spread = middle(gops)
    peak, peak_spread = middle(peaks)
    return {"m": m, "n": n, "k": k, "output": output, "gops": median, "spread_percent": spread, "peak_gops": peak,
            "peak_spread_percent": peak_spread, "of_peak": float(np.median(np.divide(gops, peaks)))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    info = qkernels.cpu_info()
    parser.add_argument("--isa", action="append", choices=info["supported"], help="again for more (default: the best)")
    parser.add_argument("--shapes", action="append", choices=sorted(path.stem for path in SHAPES.glob("*.txt")),
                        help="a file of bench/shapes; again for more (default: squares)")
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("M", "N", "K"), help="instead of files")
    parser.add_argument("--output", choices=OUTPUTS, default="int32", help="of the product (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=21, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.02, help="of products a round (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    args = parser.parse_args()

    shapes = args.shape or [shape for name in args.shapes or ["squares"] for shape in read_shapes(name)]
    print(f"{cpu_name()}; {args.output} output, one thread, {args.rounds} rounds")
    print(f"{'isa':<14}{'M':>6}{'N':>7}{'K':>7}{'us':>11}{'GOPS':>9}{'spread':>8}{'peak':>9}{'of peak':>9}")
    rows = []
    for isa in args.isa or [info["selected"]]:
        _core.select_isa(isa)
        for shape in shapes:
            row = {"isa": isa, **measure(shape, args.output, args.rounds, args.seconds)}
            rows.append(row)
            microseconds = 2e-3 * row["m"] * row["n"] * row["k"] / row["gops"]
            print(f"{isa:<14}{row['m']:>6}{row['n']:>7}{row['k']:>7}{microseconds:>11.1f}{row['gops']:>9.1f}"
                  f"{row['spread_percent']:>7.1f}%{row['peak_gops']:>9.1f}{100 * row['of_peak']:>8.1f}%", flush=True)
    if args.json:
        partial = args.json.with_suffix(args.json.suffix + ".partial")
        partial.write_text(json.dumps({"cpu": cpu_name(), "info": info, "rows": rows}, indent=1))
        partial.replace(args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
