"""Compare two results of `python -m qkernels bench --json`: how qkernels changed, with the noise in view.

A change is marked when the middle halves of the two runs' rounds do not overlap: what is not marked, the spreads
explain. The peak's change says how far the machine itself was faster or slower. The exit code is 1 when a marked loss
exceeds --fail-above, or when a product failed that did not before.
"""

import argparse
import json
import sys
from pathlib import Path


def read_rows(path):
    """{(isa, threads, product, m, n, k): row} of a result file, and the CPU's name."""
    result = json.loads(Path(path).read_text("utf-8"))
    keys = ("isa", "threads", "product", "m", "n", "k")
    return {tuple(row[key] for key in keys): row for row in result["rows"]}, result["cpu"]


def change(before, after):
    """Change of speed in percent, and the least that the spreads do not explain."""
    percent = 100 * (after["speed"] / before["speed"] - 1)
    # Half a middle half on each side of the medians; the later spread is in percent of the later median.
    noise = (before["spread_percent"] + after["spread_percent"] * after["speed"] / before["speed"]) / 2
    return percent, noise


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--fail-above", type=float, metavar="PERCENT", help="exit with 1 on a marked loss above this")
    args = parser.parse_args(argv)

    before, cpu_before = read_rows(args.before)
    after, cpu_after = read_rows(args.after)
    if cpu_before != cpu_after:
        print(f"warning: other machines: {cpu_before}; {cpu_after}", file=sys.stderr)
    lost = 0
    print(f"{'isa':<13}{'threads':>7}{'product':>17}{'M':>6}{'N':>7}{'K':>7}{'before':>10}{'after':>10}{'change':>9}"
          f"{'noise':>8}{'peak':>9}")
    for key in (key for key in before if key in after):
        old, new = before[key]["results"], after[key]["results"]
        isa, threads, product, m, n, k = key
        text = f"{isa:<13}{threads:>7}{product:>17}{m:>6}{n:>7}{k:>7}"
        failed = [when for when, results in (("before", old), ("after", new)) if "error" in results["qkernels"]]
        if failed:
            print(f"{text}  failed {' and '.join(failed)}")
            lost += failed == ["after"]
            continue
        percent, noise = change(old["qkernels"], new["qkernels"])
        mark = "" if abs(percent) <= noise else "  faster" if percent > 0 else "  SLOWER"
        lost += args.fail_above is not None and mark == "  SLOWER" and -percent > args.fail_above
        peaks_known = "error" not in old["peak"] and "error" not in new["peak"]
        peak = f"{change(old['peak'], new['peak'])[0]:>+8.1f}%" if peaks_known else ""
        print(f"{text}{old['qkernels']['speed']:>10.1f}{new['qkernels']['speed']:>10.1f}{percent:>+8.1f}%{noise:>7.1f}%"
              f"{peak:>9}{mark}")
    for name, only in (("before", before.keys() - after.keys()), ("after", after.keys() - before.keys())):
        if only:
            print(f"only in {name}: {len(only)} rows")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
