"""The chart: for each table its shapes as groups of bars, and the machine's peak above them."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from qkernels._files import replacing  # noqa: E402

from .peers import Bandwidth, Peak  # noqa: E402


def draw(path, result):
    """Write a PNG of a result."""
    tables = {}
    for row in result["rows"]:
        tables.setdefault((row["product"], row["threads"], row["isa"]), []).append(row)
    figure, axes = pyplot.subplots(len(tables), squeeze=False, layout="constrained",
                                   figsize=(4 + max(map(len, tables.values())), 4 * len(tables)))
    for (product, threads, isa), axis in zip(tables, axes[:, 0], strict=True):
        draw_table(axis, tables[product, threads, isa])
        axis.set_title(f"{product}, {threads} thread{'s' * (threads > 1)}, {isa}")
    figure.suptitle(result["cpu"])
    with replacing(path) as partial:
        pyplot.savefig(partial, format="png", dpi=120)
    pyplot.close(figure)


def draw_table(axis, rows):
    names = [name for name in rows[0]["results"] if name not in (Peak.name, Bandwidth.name)]
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = [x - 0.4 + (i + 0.5) * width for x in range(len(rows))]
        # A contender that failed has no bar.
        speeds = [row["results"][name].get("speed", 0) for row in rows]
        axis.bar(places, speeds, width, label=name)
    peaks = [row["results"][Peak.name].get("speed", float("nan")) for row in rows]
    axis.plot(range(len(rows)), peaks, "k_", markersize=24, label=Peak.name)
    axis.set_xticks(range(len(rows)), [f"{row['m']}x{row['n']}x{row['k']}" for row in rows], rotation=30, ha="right")
    axis.set_ylabel("GOPS")
    axis.legend(fontsize="small")
