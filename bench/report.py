"""The table on the terminal: a line for each shape."""

from .peers import Bandwidth, Peak, Qkernels
from .suites import PROBLEMS

HEAD = ("{:>6}{:>7}{:>7}".format("M", "N", "K")
        + "{:>11}{:>9}{:>8}{:>8}{:>9}{:>9}".format("us", "GOPS", "Gw/s", "spread", "of peak", "of band"))


def head(product, threads, isa, names):
    """Title and column names of a table."""
    others = "".join(f"{name:>15}" for name in names if name != Qkernels.name)
    title = f"{product}, {threads} thread{'s' * (threads > 1)}, {isa}: {PROBLEMS[product].products[product]}"
    return f"\n{title}\n{HEAD}{others}{'ratio':>8}"


def line(row):
    """A row of the result."""
    own = row["results"][Qkernels.name]
    text = f"{row['m']:>6}{row['n']:>7}{row['k']:>7}"
    if "error" in own:
        text += f"{'failed':>20}{'':34}"
    else:
        microseconds = 2e-3 * row["m"] * row["n"] * row["k"] / own["speed"]
        text += f"{microseconds:>11.1f}{own['speed']:>9.1f}{own['speed'] / (2 * row['m']):>8.1f}"
        text += f"{own['spread_percent']:>7.1f}%"
        text += _percent(row["of_peak"]) + _percent(row["of_bandwidth"])
    for name, result in row["results"].items():
        if name not in (Qkernels.name, Peak.name, Bandwidth.name):
            text += f"{'failed':>15}" if "error" in result else f"{result['speed']:>15.1f}"
    return text + (f"{row['ratio']:>8.2f} x {row['best_rival']}" if row["ratio"] is not None else "")


def _percent(fraction):
    return f"{'-':>9}" if fraction is None else f"{100 * fraction:>8.1f}%"


def notes(rows):
    """What the tables do not show: failures, and who was timed on a smaller range."""
    shapes = {}
    for row in rows:
        for name, result in row["results"].items():
            if "error" in result:
                text = f"{name}, {row['product']}: {result['error']}"
            elif result["a_bits"] not in (None, 8):
                text = f"{name}, {row['product']}: wrong on 8-bit activations, timed with {result['a_bits']} bits"
            else:
                continue
            shapes.setdefault(text, []).append(f"{row['m']}x{row['n']}x{row['k']}")
    return [f"{text} ({', '.join(dict.fromkeys(where))})" for text, where in shapes.items()]
