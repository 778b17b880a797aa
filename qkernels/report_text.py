"""Names and numbers in a report for people: text that is inert in HTML, sizes and times with sensible rounding."""

import html

UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def escaped(string):
    r"""A string as HTML text or attribute that shows all that is in it.

    Parameters
    ----------
    string : str
        Anything: names in a checkpoint are its author's choice.

    Returns
    -------
    str
        Control characters, marks that turn the direction of text, lone surrogates and all else that does not print
        are escape sequences, so that it can be encoded and no name looks like another one.

    Examples
    --------
    >>> from qkernels.report_text import escaped
    >>> print(escaped("<b>\0\u202e\udc80 é"))
    &lt;b&gt;\x00\u202e\udc80 é
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in string)
    return html.escape(shown)


def breakable(name):
    """The name of a tensor as HTML that may break after its dots and has its own direction of text."""
    return f"<bdi>{escaped(name).replace('.', '.<wbr>')}</bdi>"


def unit_of(n):
    """The largest unit in which n bytes are at least 1, to three digits: how many bytes it is, and its name."""
    power = 0
    while power + 1 < len(UNITS) and n >= 999.5 * 1000**power:
        power += 1
    return 1000**power, UNITS[power]


def size(n):
    """A number of bytes, to three digits.

    Examples
    --------
    >>> from qkernels.report_text import size
    >>> size(999), size(92160), size(46_881_792), size(999_600)
    ('999 B', '92.2 kB', '46.9 MB', '1.00 MB')
    """
    factor, unit = unit_of(n)
    n /= factor
    decimals = 0 if factor == 1 or n >= 99.95 else 1 if n >= 9.995 else 2
    return f"{n:,.{decimals}f} {unit}"


def ratio(before, after):
    """How much smaller or larger a size has become.

    Examples
    --------
    >>> from qkernels.report_text import ratio
    >>> ratio(64, 10), ratio(10, 11), ratio(0, 0), ratio(0, 16)
    ('6.40× smaller', '1.10× larger', 'the same size', '')
    """
    if before == after:
        return "the same size"
    if not before or not after:
        return ""
    return f"{before / after:,.2f}× smaller" if before > after else f"{after / before:,.2f}× larger"


def duration(seconds):
    """A time.

    Examples
    --------
    >>> from qkernels.report_text import duration
    >>> duration(0.206), duration(12.34), duration(192), duration(7260)
    ('0.21 s', '12.3 s', '3 min 12 s', '2 h 01 min')
    """
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def count(n, noun):
    """A number of things.

    Examples
    --------
    >>> from qkernels.report_text import count
    >>> count(1, "layer"), count(1000, "layer")
    ('1 layer', '1,000 layers')
    """
    return f"{n:,} {noun}{'s' * (n != 1)}"


def quantization(layer):
    """What became of a layer of a report, with what became otherwise of some weights of a stack.

    Examples
    --------
    >>> from qkernels.report_text import quantization
    >>> quantization({"of": "int4, method gptq", "shape": [8, 64, 32], "others": {"int4": [0, 5]}})
    'int4, method gptq; 2 of 8: int4'
    """
    others = (f"; {len(numbers)} of {layer['shape'][0]}: {of}" for of, numbers in layer.get("others", {}).items())
    return layer["of"] + "".join(others)


def decibels(sqnr):
    """An SQNR, or a dash where there is none."""
    return "–" if sqnr is None else f"{sqnr:.1f} dB"


def bits_per_weight(stored, weights):
    """The bits that a weight takes of a number of bytes, or a dash where there are no weights."""
    return f"{8 * stored / weights:.2f}" if weights else "–"
