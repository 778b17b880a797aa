"""What the command line prints."""

import sys
import warnings
from contextlib import contextmanager


def printable(text):
    """With question marks for what standard output cannot show."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def one_line(text):
    """With escapes for what is not printable: names from a file may hold anything, also what a terminal obeys."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


@contextmanager
def warnings_as_lines(say):
    """Give warnings to a function that shows a line to the user, without the place in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: say(str(message))
        yield


def print_rows(heads, rows):
    """Print a table; columns of numbers have them on the right."""
    texts = [[_text(entry) for entry in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
    is_number = [isinstance(entry, (int, float)) for entry in (rows[0] if rows else heads)]
    for row in [heads, *texts]:
        padded = (text.rjust(width) if right else text.ljust(width)
                  for text, width, right in zip(row, widths, is_number, strict=True))
        print(printable("  ".join(padded).rstrip()))


def _text(entry):
    if isinstance(entry, (int, float)):
        return f"{entry:,}" if isinstance(entry, int) else f"{entry:.3f}"
    return one_line(entry)
