"""The chart of error against size: the best mixtures of candidates, and each candidate used for all layers."""

import math

from ._files import replacing
from .allocation import frontier, total
from .sensitivity import checked_importance, label

BUDGETS = 100
GAP = 1e-4  # less than can be seen
ERRORS = {
    "hessian": "sum of squared output errors, relative to the outputs",
    "sqnr": "sum of noise / signal of the outputs",
    "kl": "sum of KL divergences of the outputs (nats)",
    "function": "sum of the model's errors, layer by layer",
}
MARKERS = "osD^vP*X<>"


def plot_frontier(table, path, *, importance=None):
    """Draw the total error of the best plans over their size, and of each candidate used for all layers.

    Parameters
    ----------
    table : dict
        As `make_plan` fills it.
    path : str or path-like
        Of a PNG file, which is either written completely or left as it was. Needs matplotlib, which
        ``pip install 'qkernels[plot]'`` brings.
    importance : mapping of str to float, optional
        As for `make_plan`.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError
        Nothing is measured in the table.
    qkernels._files.FileError
        The file cannot be written.

    Notes
    -----
    The frontier is that of 100 budgets, by `frontier` with a gap of 1e-4.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise ImportError("plot_frontier: needs matplotlib: pip install 'qkernels[plot]'") from None
    layers = {name: layer for name, layer in table.get("layers", {}).items() if layer["measured"]}
    if not layers:
        raise ValueError("table: nothing is measured in it; takes what make_plan has filled")
    weights = sum(math.prod(layer["shape"]) for layer in layers.values())
    importance = checked_importance(importance, layers)
    errors = [[importance[name] * row["error"] for row in layer["measured"]] for name, layer in layers.items()]
    bits = [[8 * row["bytes"] / max(weights, 1) for row in layer["measured"]] for layer in layers.values()]

    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    sizes, totals, _ = frontier(errors, bits, BUDGETS, gap=GAP)
    axes.step(sizes, totals, ".-", where="post", color="black", markersize=4, linewidth=1, label="best mixtures")
    positive = list(totals)
    for i, (name, (size, error)) in enumerate(_uniform(layers, errors, bits).items()):
        axes.plot(size, error, MARKERS[i % len(MARKERS)], color=f"C{i % 10}", markersize=8, label=f"only {name}")
        positive.append(error)
    if min(positive) > 0:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3, which="both")
    axes.set_title(f"Error and size of {len(layers)} quantized layers")
    axes.set_xlabel("size (bits per weight, all that is stored)")
    axes.set_ylabel(ERRORS[table["settings"]["measure"]])
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def _uniform(layers, errors, bits):
    """For each candidate that was measured for all layers, by its label: the total size and error."""
    labels = [[label(row["candidate"]) for row in layer["measured"]] for layer in layers.values()]
    places = {name: [own.index(name) for own in labels] for name in labels[0] if all(name in own for own in labels)}
    return {name: tuple(total([row[i] for row, i in zip(values, place, strict=True)]) for values in (bits, errors))
            for name, place in places.items()}
