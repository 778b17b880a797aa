"""What is done of a long job, kept in a file, so that the same job goes on after an interruption at any moment."""

import errno
import fcntl
import json
import os
import re
from contextlib import suppress
from pathlib import Path

from . import _files

FINGERPRINT = 16  # hexadecimal digits of a job's fingerprint
DIGITS = re.compile("[0-9a-f]{%d}" % FINGERPRINT)
FIRST_LINE = re.compile(rb'\{"job": ?"([0-9a-f]{%d})"\}\n' % FINGERPRINT)
LONGEST_FIRST_LINE = 64  # bytes


class Busy(_files.FileError):
    """Another process is at work on the same job."""


class Journal:
    """A file of JSON lines, the first of which is the job's fingerprint; locked while it is open.

    A job with other layers or options goes on in the same file, after a line with its own fingerprint, so that what the
    first one has done is not forgotten where it is the same.

    Parameters
    ----------
    path : str or path-like

    Attributes
    ----------
    path : Path
    jobs : dict of str to list
        What was noted of each job, by its fingerprint, the latest last; none of a new file.

    Raises
    ------
    Busy
    OSError
        It cannot be read or written, or is another program's file.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._descriptor = _locked(self.path)
        try:
            _files.check_own(self.path, os.fstat(self._descriptor))
            self._check_first_line()
            lines, self._size = _complete_lines(self._descriptor)
            self.jobs = _jobs(lines)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _check_first_line(self):
        start = os.pread(self._descriptor, LONGEST_FIRST_LINE, 0)
        if not FIRST_LINE.match(start) and not FIRST_LINE.match(_completed(start)):
            raise _files.FileError(f"{self.path}: is in the way: no journal of python -m qkernels quantize, or one of "
                                   "another version")

    def begin(self, fingerprint):
        """Take the file for a job, of which the lines are that follow.

        Parameters
        ----------
        fingerprint : str

        Returns
        -------
        list
            What `add` was given by an earlier process with the same job.
        """
        os.ftruncate(self._descriptor, self._size)
        os.lseek(self._descriptor, self._size, os.SEEK_SET)
        if fingerprint not in list(self.jobs)[-1:]:
            self._append([{"job": fingerprint}])
            _files.sync(self.path.parent)
            self.jobs[fingerprint] = self.jobs.pop(fingerprint, [])
        return list(self.jobs[fingerprint])

    def add(self, *lines):
        """Note something of the job; it is on the disk when the call returns, or no part of it if that fails."""
        self._append(lines)
        self.jobs[list(self.jobs)[-1]] += lines

    def _append(self, lines):
        data = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        except BaseException as error:
            with suppress(OSError):  # what went wrong before says more
                os.ftruncate(self._descriptor, end)
                os.lseek(self._descriptor, end, os.SEEK_SET)
            if isinstance(error, OSError):
                raise _files.FileError(f"{self.path}: {error.strerror}") from None
            raise
        self._size = os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def remove(self):
        """The job is done."""
        self.path.unlink()
        _files.sync(self.path.parent)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self.jobs:  # nothing was begun
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _locked(path):
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            why = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise _files.FileError(f"{path}: is in the way: {why}") from None
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


def _completed(start):
    """A first line of which the end may be missing, after a power cut, with what it lacks."""
    whole = b'{"job":"' + b"0" * FINGERPRINT + b'"}\n'
    return start + whole[len(start) :]


def _complete_lines(descriptor):
    """The lines of a file, and their bytes; one that is torn, or what follows a damaged one, is none."""
    with open(os.dup(descriptor), "rb") as file:
        file.seek(0)
        content = file.read()
    lines, size = [], 0
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                break
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            break
        size += len(line)
    return lines, size


def _jobs(lines):
    """The lines of each job, by its fingerprint; the one that was begun last is the last."""
    jobs, own = {}, []
    for line in lines:
        job = line.get("job") if isinstance(line, dict) else None
        if isinstance(job, str) and DIGITS.fullmatch(job):
            own = jobs[job] = jobs.pop(job, [])
        else:
            own.append(line)
    return jobs
