"""Result files of the command line."""

import json
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG


class FileError(OSError):
    """A file cannot be written; one line for the user."""


def check_writable(path):
    """Refuse a result path that cannot work, before the time is spent."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileError(f"{path}: no such folder")
    if os.path.lexists(target) and not target.is_file():
        raise FileError(f"{path}: not a regular file")


def results_of(args, *names):
    """The options among these that name a file to write: (option, path), as `check_apart` takes them."""
    return [(f"--{name.replace('_', '-')}", getattr(args, name)) for name in names if getattr(args, name)]


def check_results(results, inputs=()):
    """Refuse results that cannot be written, or not without a loss, before the time is spent; as `check_apart`."""
    check_apart(inputs, results)
    for _, path in results:
        check_writable(path)


class Overwrites(FileError, ValueError):
    """A result would be written over what the same job reads or writes otherwise."""


def check_apart(inputs, outputs):
    """Refuse results that would be written over what the same job reads, or over each other.

    Parameters
    ----------
    inputs, outputs : iterable of (str, str or path-like)
        For messages what each file is, such as "the source" or "--json", and its path. Symbolic and hard links are seen
        through; nothing has to be there yet.

    Raises
    ------
    Overwrites
    """
    taken, folders = {}, {}
    for what, path in inputs:
        taken |= dict.fromkeys(_places(path), what)
    outputs = list(outputs)
    for what, path in outputs:
        for place in _places(path):
            if place in taken:
                raise Overwrites(f"{what}: {path} is {taken[place]}")
            taken[place] = f"where {what} is written"
        folders = dict.fromkeys(Path(os.path.realpath(path)).parents, what) | folders
    for what, path in outputs:
        folder = Path(os.path.realpath(path))
        if folder in folders:
            raise Overwrites(f"{what}: {path} is the folder of {folders[folder]}")


def _places(path):
    """What two paths of one file have in common: where links lead to, and the file itself, if it is there."""
    yield os.path.realpath(path)
    with suppress(OSError):
        stat = os.stat(path)
        yield stat.st_dev, stat.st_ino


def check_own(path, stat):
    """Refuse what lies where a job keeps a file of its own, if it is none or has other names; stat: of it."""
    if not S_ISREG(stat.st_mode):
        raise FileError(f"{path}: is in the way: no regular file")
    if stat.st_nlink > 1:
        raise FileError(f"{path}: is in the way: a file with other names, hard links, too")


def sync(path):
    """Have what was written to a file, or the names in a folder, on the disk, before a power cut can tear it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path):
    """A path to write to; the file there takes the place of `path` when the block ends well."""
    check_writable(path)
    target = Path(os.path.realpath(path))
    partial = target.with_name(f"{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield partial
        sync(partial)
        os.replace(partial, target)
        sync(target.parent)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    finally:
        with suppress(OSError):  # what went wrong before says more
            partial.unlink()


def write_json(path, figures):
    """Write figures so that the file is either complete or as it was before."""
    text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, "utf-8", "backslashreplace")  # bytes of a path that are no UTF-8: JSON's own escapes
