"""The sentences of the demo: those of a file, or of Python's documentation, from which others serve for calibration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice


class DemoError(Exception):
    """Something the user can put right; shown as one line."""


def split_sentences(text: str) -> list[str]:
    """The plain English sentences of a text in Sphinx's text format.

    Only paragraphs that start at the margin count: headings, lists, code, grammar and tables are
    left out, as are short and long sentences, fragments and those that are mostly code.
    """
    sentences = []
    for block in re.split(r"\n\s*\n", text):
        if re.search(r"^(\s|[*=~^#|+-]{2}|[*-] )", block, re.MULTILINE):
            continue
        block = re.sub(r"(?<=\w)-\n(?=\w)", "-", block)  # words broken at their hyphen
        block = re.sub(r"\*\*?(\S(?:[^*]*\S)?)\*\*?", r"\1", block)  # emphasis
        block = re.sub(r"\s*\[\d+\]", "", block)  # footnotes
        block = " ".join(block.split())
        for sentence in re.split(r"""(?:(?<=[.!?])|(?<=[.!?][)”’"]))\s(?=["“(]?[A-Z])""", block):
            words = sentence.split()
            plain = [w for w in words if re.fullmatch(r"[(“‘]?[A-Za-z][a-z’'-]*[,;:.!?)”]*", w)]
            if (
                6 <= len(words) <= 40
                and len(plain) >= 0.8 * len(words)
                and re.fullmatch(r"[“(]?[A-Z].*[.!?][)”]?", sentence)
                and not re.match(r"(New|Added|Changed|Deprecated) (in|since) version", sentence)
            ):
                sentences.append(sentence)
    return sentences


def documentation_sentences() -> list[str]:
    """All different sentences of Python's documentation."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise DemoError("this Python comes without pydoc_data; name a text file, and calibrate nothing") from None
    return list(dict.fromkeys(s for text in topics.values() for s in split_sentences(text)))


def calibration_sentences(evaluated: Sequence[str], count: int) -> list[str]:
    """Up to `count` sentences of Python's documentation that are not among those evaluated, spread evenly over it."""
    seen = set(evaluated)
    rest = [sentence for sentence in documentation_sentences() if sentence not in seen]
    if not rest:
        raise DemoError("no sentences are left to calibrate with; --limit takes fewer")
    return _spread(rest, count)


def _spread(found: list[str], count: int) -> list[str]:
    """Up to `count` (0: all) of them, evenly."""
    count = min(count or len(found), len(found))
    return [found[i * len(found) // count] for i in range(count)]


def read_sentences(path: str | None, limit: int) -> tuple[list[str], str]:
    """Up to `limit` (0: all) different sentences, and where they come from.

    A file or standard input (``"-"``) gives its first lines; without a path the sentences are
    spread evenly over the topics of Python's documentation.
    """
    if path is None:
        return _spread(documentation_sentences(), limit), "pydoc_data.topics"

    source = "standard input" if path == "-" else path
    try:
        with open(0 if path == "-" else path, encoding="utf-8-sig", closefd=path != "-") as lines:
            sentences = list(islice(_different(line.strip() for line in lines), limit or None))
    except OSError as error:
        raise DemoError(f"{source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DemoError(f"{source}: not UTF-8 text") from None
    if not sentences:
        raise DemoError(f"{source}: no sentences in it")
    return sentences, source


def _different(lines: Iterable[str]) -> Iterable[str]:
    seen = {""}
    for line in lines:
        if line not in seen:
            seen.add(line)
            yield line
