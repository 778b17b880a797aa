"""The report of a quantized checkpoint as one HTML page that needs nothing else, and no network."""

import base64
import hashlib
from pathlib import Path
from statistics import median

from ._files import replacing
from .report_chart import (
    colors, layer_chart, layers_in_a_column, lowest_of, size_chart, total, total_before, weights_of,
)
from .report_style import SCRIPT, STYLE
from .report_text import bits_per_weight, breakable, count, decibels, duration, escaped, quantization, ratio, size

VERSION = 1


def report_page(report):
    """The page.

    Parameters
    ----------
    report : dict
        As ``python -m qkernels quantize`` writes it to its JSON file, version 1.

    Returns
    -------
    str
        HTML that loads nothing and can be encoded as UTF-8, whatever the names in the checkpoint are.

    Raises
    ------
    ValueError
        The report is of another version.

    Examples
    --------
    >>> from qkernels.report_page import report_page
    >>> layer = {"name": "up.weight", "of": "int8", "shape": [64, 64], "dtype": "F32", "float_bytes": 16384,
    ...          "bytes": 4352, "bits": 8.5, "sqnr": 42.1, "seconds": 0.01}
    >>> page = report_page({"version": 1, "qkernels": "0.1.0", "source": "model.safetensors",
    ...                     "output": "out.safetensors", "isa": "avx2", "layout": "nr16-kr2", "processes": 1,
    ...                     "seconds": 0.02, "layers": [layer], "kept": []})
    >>> page[:15], "3.76× smaller" in page, "42.1 dB" in page
    ('<!DOCTYPE html>', True, True)
    """
    if report["version"] != VERSION:
        raise ValueError(f"report: got version {report['version']!r}, takes {VERSION}")
    layers, kept = report["layers"], report["kept"]
    color_of = colors(layers)
    return PAGE.format(
        policy=POLICY, style=STYLE, script=SCRIPT,
        title=escaped(Path(report["output"]).name),
        source=breakable(report["source"]), output=breakable(report["output"]),
        headlines=_headlines(report),
        sizes=size_chart(layers, kept, color_of) + _table_of_formats(layers, kept, color_of),
        chart=_chart(layers, color_of),
        layers=_table_of_layers(layers, color_of),
        kept=_table_of_kept(kept),
        about=f"qkernels {escaped(report['qkernels'])} · ISA {escaped(report['isa'])} · "
              f"layout of the panels {escaped(report['layout'])} · report version {VERSION}",
    )


def write_page(path, report):
    """Write the page so that the file is either complete or as it was before.

    Parameters
    ----------
    path : str or path-like
    report : dict
        As for `report_page`.

    Raises
    ------
    ValueError
        The report is of another version.
    qkernels._files.FileError
        The file cannot be written.
    """
    page = report_page(report)
    with replacing(path) as partial:
        partial.write_text(page, "utf-8")


def _source(text):
    """What a content security policy calls the text of one script or style: nothing else in the page runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} – quantization report</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>Quantization report</h1>
<p class="files">{source} → <strong>{output}</strong></p>
<p class="about">{about}</p>
<nav aria-label="Sections"><a href="#sizes">Sizes</a> <a href="#quality">Quality</a> <a href="#layers">Layers</a>
<a href="#kept">Kept</a></nav>
</header>
<main>
<dl class="headlines">{headlines}</dl>
<section id="sizes"><h2>Sizes</h2>
{sizes}
</section>
<section id="quality"><h2>Quality and size by layer</h2>
{chart}
</section>
<section id="layers"><h2>Quantized layers</h2>
{layers}
</section>
<section id="kept"><h2>Kept as they were</h2>
{kept}
</section>
</main>
<script>{script}</script>
</body>
</html>
"""


def _headlines(report):
    """The figures that most readers came for."""
    layers, kept = report["layers"], report["kept"]
    weights, lowest, processes = weights_of(layers), lowest_of(layers), report["processes"]
    before, after = total_before(layers), total(layers)
    all_before, all_after = before + total(kept), after + total(kept)
    figures = [
        ("All tensors", f"{size(all_before)} → {size(all_after)}", ratio(all_before, all_after)),
        (f"In {count(len(layers), 'quantized layer')}", f"{size(before)} → {size(after)}", ratio(before, after)),
        ("Bits per quantized weight", bits_per_weight(after, weights), count(weights, "weight")),
    ]
    if lowest:
        middle = median(layer["sqnr"] for layer in layers if layer["sqnr"] is not None)
        link = f'<a href="#layer-{layers.index(lowest) + 1}">{breakable(lowest["name"])}</a>'
        figures.append(("Lowest SQNR", decibels(lowest["sqnr"]), f"median {decibels(middle)}; {link}"))
    figures += [
        ("Kept as they were", count(len(kept), "tensor"), size(total(kept))),
        ("Time", duration(report["seconds"]),
         "workers of an executor" if processes is None else f"{processes} process{'es' * (processes != 1)}"),
    ]
    return "".join(f"<div><dt>{label}</dt><dd><b>{figure}</b><span>{more}</span></dd></div>\n"
                   for label, figure, more in figures)


def _table_of_formats(layers, kept, color_of):
    """The key to the colors of the charts, and the sums."""
    rows = []
    for of, color in color_of.items():
        own = [layer for layer in layers if layer["of"] == of]
        lowest = lowest_of(own)
        rows.append(_row(_swatch(color) + escaped(of), len(own), total_before(own), total(own),
                         bits_per_weight(total(own), weights_of(own)), decibels(lowest and lowest["sqnr"])))
    if kept:
        rows.append(_row(_swatch("kept") + "kept as they were", len(kept), total(kept), total(kept), "", ""))
    sums = _row("all tensors", len(layers) + len(kept), total_before(layers) + total(kept),
                total(layers) + total(kept), "", "")
    return f"""<table class="formats"><caption>Bytes by format</caption>
<thead><tr><th scope="col">format</th><th scope="col">tensors</th><th scope="col">before</th><th scope="col">after</th>
<th scope="col">bits per weight</th><th scope="col">lowest SQNR</th></tr></thead>
<tbody>
{"".join(rows)}</tbody>
<tfoot>
{sums}</tfoot></table>"""


def _row(label, tensors, before, after, bits, sqnr):
    return (f'<tr><th scope="row">{label}</th><td>{tensors:,}</td><td>{size(before)}</td><td>{size(after)}</td>'
            f"<td>{bits}</td><td>{sqnr}</td></tr>\n")


def _swatch(color):
    return f'<svg class="swatch" aria-hidden="true"><rect class="{color}"/></svg> '


def _chart(layers, color_of):
    if not layers:
        return "<p>No layer was quantized.</p>"
    step, none = layers_in_a_column(layers), sum(layer["sqnr"] is None for layer in layers)
    without = f"{count(none, 'layer')} without SQNR: not measured, exact, or all zero." if none else ""
    columns = ("a layer, which it links to" if step == 1 else
               f"{step} layers that follow one another; it links to the one with the lowest SQNR")
    return f"""<figure>
{layer_chart(layers, color_of)}
<figcaption>Each column is {columns}. Colors are those of the formats above. SQNR is the ratio of the weights
to the error of their quantization: more is better, and 6 dB are one bit. {without}</figcaption>
</figure>"""


def _table_of_layers(layers, color_of):
    if not layers:
        return "<p>No layer was quantized.</p>"
    lowest = lowest_of(layers)
    rows = []
    for number, layer in enumerate(layers, 1):
        marked, note = (' class="lowest"', " <mark>lowest SQNR</mark>") if layer is lowest else ("", "")
        sqnr = "Infinity" if layer["sqnr"] is None else layer["sqnr"]  # where it is sorted
        rows.append(
            f'<tr id="layer-{number}"{marked}><td><data value="{number}">{number:,}</data></td>'
            f'<th scope="row">{breakable(layer["name"])}{note}</th>'
            f'<td>{_swatch(color_of[layer["of"]])}{escaped(quantization(layer))}</td>'
            f'<td><data value="{weights_of([layer])}">{_shape(layer)}</data></td>'
            f'<td><data value="{layer["bits"]}">{layer["bits"]:.2f}</data></td>'
            f'<td><data value="{layer["bytes"]}">{size(layer["bytes"])}</data></td><td><data value="{sqnr}">'
            f"{decibels(layer['sqnr'])}</data></td>"
            f'<td><data value="{layer["seconds"]}">{duration(layer["seconds"])}</data></td></tr>\n')
    heads = "".join(f'<th scope="col">{head}</th>' for head in (
        "#", "name", "format", "shape", "bits", "bytes", "SQNR", "time"))
    return f"""<table class="layers"><caption>{count(len(layers), "layer")}; bits are those that a weight takes with all
that is stored for it</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{"".join(rows)}</tbody></table>"""


def _table_of_kept(kept):
    """A group of rows for each reason, those with the most bytes first."""
    if not kept:
        return "<p>No tensor was kept.</p>"
    groups = {}
    for tensor in kept:
        groups.setdefault(tensor["why"], []).append(tensor)
    bodies = []
    for why, own in sorted(groups.items(), key=lambda group: -total(group[1])):
        rows = "".join(f'<tr><th scope="row">{breakable(tensor["name"])}</th><td>{_shape(tensor)}</td>'
                       f'<td>{size(tensor["bytes"])}</td></tr>\n' for tensor in own)
        bodies.append(f'<tbody>\n<tr class="why"><th colspan="3" scope="rowgroup">{escaped(why)} '
                      f"<span>{count(len(own), 'tensor')}, {size(total(own))}</span></th></tr>\n{rows}</tbody>\n")
    return f"""<table class="kept"><caption>{count(len(kept), "tensor")}, by the reason</caption>
<thead><tr><th scope="col">name</th><th scope="col">shape</th><th scope="col">bytes</th></tr></thead>
{"".join(bodies)}</table>"""


def _shape(tensor):
    return f"{' × '.join(map(str, tensor['shape'])) or 'scalar'} <small>{escaped(tensor['dtype'])}</small>"
