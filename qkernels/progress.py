"""The progress bar of long calls."""

from contextlib import contextmanager
from contextvars import ContextVar

_QUIET = ContextVar("quiet", default=False)


@contextmanager
def quiet():
    """A context whose calls show no bars, because the one around them does."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def progress(items, total, desc, unit, size=lambda item: 1):
    """The items, with a bar on a terminal once they have taken two seconds (and if tqdm is there).

    Parameters
    ----------
    items : iterable
    total : int
        What their sizes add up to.
    desc, unit : str
        What is done, and what is counted; "B", bytes, are shown as kB, MB and so on.
    size : callable, optional
        How many units an item is; 1 by default.

    Yields
    ------
    object
        Each item.

    Examples
    --------
    >>> from qkernels.progress import progress
    >>> list(progress([3, 5], 2, "adding", "number"))
    [3, 5]
    """
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    if tqdm is None or _QUIET.get():
        yield from items
        return
    with tqdm(total=total, desc=desc, unit=unit, unit_scale=unit == "B", delay=2, leave=False, disable=None) as bar:
        for item in items:
            yield item
            bar.update(size(item))
