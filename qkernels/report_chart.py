"""The charts of a report as SVG: x in percent of the width, y in pixels, so that text keeps its size on any screen."""

import math

from .report_text import bits_per_weight, count, decibels, escaped, size, unit_of
from .safetensors_format import BITS

COLORS = 6  # that differ well; the formats beyond them share one
COLUMNS = 160  # that a phone can show
LEAST_COLUMNS = 12  # that fill the width; fewer keep their bars slim
TOP, SQNR_HEIGHT, BYTES_HEIGHT = 30, 170, 120  # of the panels, in pixels
BETWEEN = 56  # the panels: the note of the lowest SQNR and a title


def total(tensors):
    return sum(tensor["bytes"] for tensor in tensors)


def total_before(layers):
    """The bytes of layers in the checkpoint, where they need not be float32."""
    return sum(math.prod(layer["shape"]) * BITS[layer["dtype"]] // 8 for layer in layers)


def weights_of(tensors):
    return sum(math.prod(tensor["shape"]) for tensor in tensors)


def colors(layers):
    """The CSS class of each format: that with the most bytes first."""
    bytes_of = {}
    for layer in layers:
        bytes_of[layer["of"]] = bytes_of.get(layer["of"], 0) + layer["bytes"]
    order = sorted(bytes_of, key=bytes_of.get, reverse=True)
    return {of: f"color{i}" if i < COLORS else "others" for i, of in enumerate(order)}


def lowest_of(layers):
    """The layer with the lowest SQNR; None where none has one."""
    return min((layer for layer in layers if layer["sqnr"] is not None), key=lambda layer: layer["sqnr"], default=None)


def size_chart(layers, kept, color_of):
    """Two bars, before and after, of what each format and the kept tensors take."""
    own = [(of, color, [layer for layer in layers if layer["of"] == of]) for of, color in color_of.items()]
    rows = [[(of, color, bytes_of(part)) for of, color, part in own] + [("kept as it was", "kept", total(kept))]
            for bytes_of in (total_before, total)]
    sums = [sum(n for _, _, n in row) for row in rows]
    drawn = []
    for i, (label, row) in enumerate(zip(("before", "after"), rows, strict=True)):
        y, x = 60 * i, 0
        drawn.append(f'<text x="0" y="{y + 14}">{label}: {size(sums[i])}</text>')
        for of, color, n in row:
            if not n:
                continue
            width = 100 * n / max(sums)
            drawn.append(f'<rect class="{color}" x="{x:.3f}%" y="{y + 22}" width="{width:.3f}%" height="22">'
                         f"<title>{escaped(of)}: {size(n)} {label}</title></rect>")
            x += width
    return ('<svg class="sizes" height="104" role="img" aria-label="Bytes before and after, by format; '
            f'the table below has the figures">{"".join(drawn)}</svg>')


def layer_chart(layers, color_of):
    """SQNR and bytes of each layer, or of each few layers that follow one another in the file.

    Parameters
    ----------
    layers : list of dict
        Of a report, at least one.
    color_of : dict of str to str
        A CSS class for each format.

    Returns
    -------
    str
        An ``svg`` element. Each column links to the row of the layer with the lowest SQNR in it.
    """
    step, lowest = layers_in_a_column(layers), lowest_of(layers)
    columns = [layers[start:start + step] for start in range(0, len(layers), step)]
    width = 100 / max(len(columns), LEAST_COLUMNS)
    drawn, top, y_of_sqnr = [], TOP, None
    if lowest:
        values = [layer["sqnr"] for layer in layers if layer["sqnr"] is not None]
        heights = ticks(min(values) - 0.5, max(values) + 0.5, 5)
        y_of_sqnr = _scale(heights, top, SQNR_HEIGHT)
        drawn.append(_grid("SQNR of the weights", top, heights, y_of_sqnr, lambda tick: f"{tick:g} dB"))
        top += SQNR_HEIGHT + BETWEEN
    stored = ticks(0, max(4, *(total(column) for column in columns)), 4)
    factor, unit = unit_of(stored[-1])
    y_of_bytes = _scale(stored, top, BYTES_HEIGHT)
    drawn.append(_grid("bytes stored", top, stored, y_of_bytes,
                       lambda tick: f"{tick / factor:g} {unit}" if tick else "0"))
    drawn += [_column(column, i * step, i * width, width, color_of, y_of_sqnr, y_of_bytes)
              for i, column in enumerate(columns)]

    def x_of(index):
        return (index // step + 0.5) * width

    bottom = top + BYTES_HEIGHT
    for number in (n for n in ticks(0, max(len(layers), 8), 8) if 1 <= n <= len(layers)):
        x = x_of(number - 1)
        anchor = "middle" if x < 97 else "end"
        drawn.append(f'<text class="tick" x="{x:.3f}%" y="{bottom + 18}" text-anchor="{anchor}">{number:,.0f}</text>')
    drawn.append(f'<text x="50%" y="{bottom + 44}" text-anchor="middle">layer, in the order of the file</text>')
    if lowest:
        drawn.append(_note(x_of(layers.index(lowest)), y_of_sqnr(lowest["sqnr"]), lowest["sqnr"]))
    return (f'<svg class="layers{" many" * (len(columns) > 60)}" height="{bottom + 50}" role="group" '
            f'aria-label="SQNR and bytes by layer; the table of layers has the figures">{"".join(drawn)}</svg>')


def layers_in_a_column(layers):
    return math.ceil(len(layers) / COLUMNS)


def _column(layers, start, x, width, color_of, y_of_sqnr, y_of_bytes):
    """A link: the ranges of SQNR and the bars of bytes, by format, of the layers after the first `start`."""
    marks, below = [], 0
    center = f"{x + width / 2:.3f}%"
    for of, color in color_of.items():
        own = [layer for layer in layers if layer["of"] == of]
        values = [layer["sqnr"] for layer in own if layer["sqnr"] is not None]
        if values:  # round ends make a dot of a range without length
            marks.append(f'<line class="range {color}" x1="{center}" x2="{center}" '
                         f'y1="{y_of_sqnr(max(values)):.1f}" y2="{y_of_sqnr(min(values)):.1f}"/>')
        if own:
            above = below + total(own)
            top, bottom = y_of_bytes(above), y_of_bytes(below)
            marks.append(f'<rect class="{color}" x="{x + 0.1 * width:.3f}%" y="{top:.1f}" '
                         f'width="{0.8 * width:.3f}%" height="{bottom - top:.1f}"/>')
            below = above
    lowest = lowest_of(layers) or layers[0]
    number = start + 1 + layers.index(lowest)
    return (f'<a href="#layer-{number}" tabindex="-1"><title>{_tooltip(layers, start, lowest)}</title>'
            f'<rect class="hit" x="{x:.3f}%" y="0" width="{width:.3f}%" height="{y_of_bytes(0):.1f}"/>'
            f'{"".join(marks)}</a>')


def _tooltip(layers, start, lowest):
    stored = total(layers)
    figures = f"{size(stored)}, {bits_per_weight(stored, weights_of(layers))} bits per weight"
    sqnr = f"SQNR {decibels(lowest['sqnr'])}"
    if len(layers) == 1:
        return "\n".join([f"{start + 1}: {escaped(lowest['name'])}", escaped(lowest["of"]), figures, sqnr])
    return "\n".join([f"{count(len(layers), 'layer')}, {start + 1} to {start + len(layers)}", figures,
                      f"lowest {sqnr}: {escaped(lowest['name'])}"])


def _note(x, y, sqnr):
    """A ring around the lowest SQNR, and its value below, where nothing else is."""
    shift, anchor = (-8, "start") if x < 33 else (8, "end") if x > 67 else (0, "middle")
    return (f'<circle class="ring" cx="{x:.3f}%" cy="{y:.1f}" r="7"/><text class="lowest" x="{x:.3f}%" dx="{shift}" '
            f'y="{y + 22:.1f}" text-anchor="{anchor}">lowest: {decibels(sqnr)}</text>')


def _scale(values, top, height):
    """The function from a value to its y, in a panel whose ticks are values."""
    low, high = values[0], values[-1]
    return lambda value: top + height * (high - value) / (high - low)


def _grid(title, top, values, y_of, label):
    """A panel's title, lines and their labels, which stand left of the plot."""
    lines = "".join(f'<line class="grid" x1="0" x2="100%" y1="{y_of(v):.1f}" y2="{y_of(v):.1f}"/><text class="tick" '
                    f'x="-8" y="{y_of(v) + 4:.1f}" text-anchor="end">{label(v)}</text>' for v in values)
    return f'<text class="panel" x="-56" y="{top - 14}">{title}</text>{lines}'


def ticks(low, high, most):
    """Round numbers in equal steps, at most `most`, from at or below low to at or above high.

    Examples
    --------
    >>> from qkernels.report_chart import ticks
    >>> ticks(0, 92160, 4), ticks(17.3, 21.2, 5)
    ([0.0, 50000.0, 100000.0], [17.0, 18.0, 19.0, 20.0, 21.0, 22.0])
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.floor(low / step), math.ceil(high / step)
        if last - first <= most:
            return [i * step for i in range(first, last + 1)]
