"""Result files of the command line."""

import json
import os
from contextlib import contextmanager
from pathlib import Path


class FileError(Exception):
    """A result file cannot be written; one line for the user."""


def check_writable(path):
    """Refuse a result path that cannot work, before the time is spent."""
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileError(f"{path}: no such folder")
    if target.exists() and not target.is_file():
        raise FileError(f"{path}: not a regular file")


@contextmanager
def replacing(path):
    """A path to write to; the file there takes the place of `path` when the block ends well."""
    target = Path(path).resolve()
    partial = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        yield partial
        os.replace(partial, target)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def write_json(path, figures):
    """Write figures so that the file is either complete or as it was before."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")
