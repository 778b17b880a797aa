"""What the command line prints."""

import os
import select
import signal
import sys
import warnings
from contextlib import contextmanager


def ending_quietly(main):
    """The exit code of main(), also where what reads the output ends before it, as ``head`` does."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    try:
        try:
            return main()
        finally:
            for stream in streams:
                stream.flush()
    except BrokenPipeError:
        if not any(map(_has_no_reader, streams)):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in streams:  # the interpreter flushes them once more in the end
            os.dup2(nowhere, stream.fileno())
        return 128 + signal.SIGPIPE


def _has_no_reader(stream):
    poll = select.poll()
    poll.register(stream, 0)  # errors are told of always
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def printable(text):
    """With question marks for what standard output cannot show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # it may be closed
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
