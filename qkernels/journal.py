"""What is done of a long job, kept in a file, so that the same job goes on after an interruption at any moment."""

import fcntl
import json
import os
from pathlib import Path

from . import _files


class Busy(_files.FileError):
    """Another process is at work on the same job."""


class Journal:
    """A file of JSON lines, the first of which is the job's fingerprint; locked while it is open.

    Parameters
    ----------
    path : str or path-like
    fingerprint : str

    Attributes
    ----------
    lines : list
        Those after the first, of an earlier process with the same job; [] where there was none.
    is_of_another : bool
        Whether it was that of another job, which is forgotten.

    Raises
    ------
    Busy
    OSError
        It cannot be read or written.
    """

    def __init__(self, path, fingerprint):
        self.path = Path(path)
        self._descriptor = _locked(self.path)
        try:
            self._begin(fingerprint)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _begin(self, fingerprint):
        lines, size = _complete_lines(self._descriptor)
        self.is_of_another = size > 0 and lines[0] != {"job": fingerprint}
        if self.is_of_another:
            lines, size = [], 0
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        if not lines:
            self.add({"job": fingerprint})
            _files.sync(self.path.parent)
        self.lines = lines[1:]

    def add(self, line):
        """Append a line; it is on the disk when the call returns."""
        os.write(self._descriptor, json.dumps(line, separators=(",", ":")).encode() + b"\n")
        os.fsync(self._descriptor)

    def remove(self):
        """The job is done."""
        self.path.unlink()
        _files.sync(self.path.parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._descriptor)


def _locked(path):
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise Busy(f"{path}: another process is at work on the same output") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the process that had the lock has removed the file


def _complete_lines(descriptor):
    """The lines of a file, and their bytes; one that is torn, or what follows a damaged one, is none."""
    with open(os.dup(descriptor), "rb") as file:
        content = file.read()
    lines, size = [], 0
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                break
            lines.append(json.loads(line))
        except ValueError:
            break
        size += len(line)
    return lines, size
