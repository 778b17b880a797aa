"""Result files of the command line."""

import json
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path


class FileError(OSError):
    """A file cannot be written; one line for the user."""


def check_writable(path):
    """Refuse a result path that cannot work, before the time is spent."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileError(f"{path}: no such folder")
    if target.exists() and not target.is_file():
        raise FileError(f"{path}: not a regular file")


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
    target = Path(path).resolve()
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
    with replacing(path) as partial:
        partial.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")
