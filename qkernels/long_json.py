"""JSON objects of headers, read pair by pair, in no more memory than that of what is kept of them.

A header may have 100 MB, of which `json.loads` makes several GB before anything is checked. Here the caller checks, and
makes something smaller of, each pair as it comes, and the first that is wrong is the last that is read.
"""

import json
import re

LONGEST = 2**12  # characters of a value that is no string
SPACE = r"[ \t\n\r]*"
BEGIN, END, COLON, NEXT = (re.compile(SPACE + token + SPACE) for token in (r"\{", r"\}", ":", "([,}])"))


class NoJSON(ValueError):
    """A text is none, or none that is read here."""


def read_object(text, start, read):
    """Read an object.

    Parameters
    ----------
    text : str
    start : int
        Where the object is in it.
    read : callable
        Is given a name, the text and where the value of that name starts; returns what is kept of it, and where it
        ends, as `read_value` and `read_string` do.

    Returns
    -------
    kept : dict of str to object
    end : int
        Where the text goes on.

    Raises
    ------
    NoJSON
        It is none, or has a name twice.
    """
    kept, at = {}, _end_of(BEGIN, text, start, "an object")
    empty = END.match(text, at)
    if empty:
        return kept, empty.end()
    more = ","
    while more == ",":
        name, at = read_string(text, at)
        if name in kept:
            raise NoJSON("an entry is there twice")
        kept[name], at = read(name, text, _end_of(COLON, text, at, "a colon"))
        found = NEXT.match(text, at)
        if not found:
            raise NoJSON(f"takes a comma or the end of an object at character {at}")
        more, at = found[1], found.end()
    return kept, at


def read_string(text, start):
    """The string that starts there, however long, and where it ends."""
    if text[start : start + 1] != '"':
        raise NoJSON(f"takes a string at character {start}")
    return _decoded(text, start)


def read_value(text, start):
    """The value that starts there, and where it ends; one of bounded length, so that it takes little memory."""
    beginning = text[start : start + LONGEST]
    try:
        value, end = _decoded(beginning, 0)
    except NoJSON:
        if len(beginning) < LONGEST:
            raise
        raise NoJSON(f"the value at character {start} is damaged, or has more than {LONGEST} characters") from None
    return value, start + end


def check_end(text, end):
    """Refuse a text that goes on where its object has ended."""
    if end != len(text):
        raise NoJSON(f"goes on at character {end}")


def check_unicode(text):
    """Refuse halves of surrogate pairs, which JSON's escapes can say, but no UTF-8 holds and no message shows."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text[:100]!a}: is no Unicode text") from None


def _decoded(text, start):
    try:
        value, end = DECODER.raw_decode(text, start)
        if isinstance(value, str):
            check_unicode(value)
    except (ValueError, RecursionError) as error:
        raise NoJSON(str(error)) from None
    return value, end


def _end_of(token, text, start, what):
    found = token.match(text, start)
    if not found:
        raise NoJSON(f"takes {what} at character {start}")
    return found.end()


def _without_duplicates(pairs):
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("an entry is there twice")
    check_unicode("".join(entries))
    return entries


def _refuse(constant):
    raise ValueError(f"got {constant}, which is no JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse)
