"""The files of a quantized checkpoint while they are made: of full size, filled in any order, renamed in the end."""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import _files, model_file, shards
from .checkpoint import read_into
from .progress import progress
from .quantize_layer import Done, are_places, write_at

PIECE = 16 * model_file.PIECE  # bytes that are copied at a time


class Left(NamedTuple):
    """A layer in a partial file of another job.

    Attributes
    ----------
    path : Path
    places : dict of str to int
        Where its parts start, by what is added to its name.
    done : Done
    """

    path: Path
    places: dict
    done: Done


class PartialFiles:
    """The files of one job.

    Parameters
    ----------
    conversion : Conversion
    fingerprint : str
        Of the job. It is a part of the files' names, so that processes of another one, which may still be at work,
        write to other files.
    """

    def __init__(self, conversion, fingerprint):
        self.conversion = conversion
        self._names = conversion.partial_paths(fingerprint)

    def check(self, is_known):
        """Refuse what is in the way of the files; is_known: whether there may be some of an earlier process."""
        for path in self._names.values():
            with contextlib.suppress(FileNotFoundError):
                _files.check_own(path, os.lstat(path))
                if not is_known:
                    raise _files.FileError(f"{path}: is in the way: of no job that {self.conversion.journal} tells of")

    def layers(self, measure):
        """What is to be done for each layer."""
        return [self.conversion.layer(name, self._names[file.path], measure)
                for name, file in self.conversion.file_of.items()]

    def allocate(self):
        """Take the space for all, or for none: an OSError, then, before any work."""
        made = []
        try:
            for file in self.conversion.files:
                path = self._names[file.path]
                made += [] if path.exists() else [path]
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                try:
                    _allocate(descriptor, file.nbytes)
                finally:
                    os.close(descriptor)
        except OSError as error:
            for path in made:
                path.unlink(missing_ok=True)
            nbytes = sum(file.nbytes for file in self.conversion.files)
            raise _files.FileError(f"{self.conversion.out}: {error.strerror} ({nbytes} bytes are needed)") from None

    def verified(self, done):
        """Those of the layers that are done, a dict of str to Done, which have their checksums."""
        found = {}
        for file in self.conversion.files:
            path, claimed = self._names[file.path], [name for name in file.matrices if name in done]
            if not claimed or not path.exists() or path.stat().st_size != file.nbytes:
                continue
            with open(path, "rb", buffering=0) as opened:
                for name in progress(claimed, len(claimed), "comparing checksums", "layer"):
                    parts = file.parts(name)
                    if all("".join(map(model_file.checksum, _pieces(opened, parts[suffix]))) == digits
                           for suffix, digits in done[name].checksums.items()):
                        found[name] = done[name]
        return found

    def left_by(self, jobs, keys):
        """What other jobs have left that is the same in this one.

        Parameters
        ----------
        jobs : dict of str to list
            Their lines, by their fingerprints.
        keys : dict of str to str
            `Conversion.keys` of the layers that are still to be done.

        Returns
        -------
        dict of str to Left
        """
        left, file_of = {}, self.conversion.file_of
        for job, lines in reversed(jobs.items()):
            paths = self.conversion.partial_paths(job)
            for line in lines:
                name = line.get("layer") if isinstance(line, dict) else None
                if isinstance(name, str) and name in keys and name not in left and line.get("key") == keys[name]:
                    done, parts = Done.of_line(line), file_of[name].parts(name)
                    path = paths[file_of[name].path]
                    if done.is_of(parts) and are_places(line.get("at"), parts, _size_of_own(path)):
                        left[name] = Left(path, line["at"], done)
        return left

    def take_over(self, left):
        """Copy what other jobs have left.

        Parameters
        ----------
        left : dict of str to Left

        Yields
        ------
        dict of str to Done
            What of a file is on the disk.
        """
        for file in self.conversion.files:
            own, taken = [name for name in file.matrices if name in left], {}
            if not own:
                continue
            descriptor = os.open(self._names[file.path], os.O_WRONLY)
            try:
                for name in progress(own, len(own), "taking over what is done", "layer"):
                    path, places, done = left[name]
                    if all(_copied(path, part._replace(start=places[suffix]), descriptor, part.start)
                           == done.checksums[suffix] for suffix, part in file.parts(name).items()):
                        taken[name] = done
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield taken

    def finish(self, done):
        """Write all that is not of layers. Returns the checksum of each header."""
        seals = []
        for file in self.conversion.files:
            checksums = {name + suffix: digits for name in file.matrices
                         for suffix, digits in done[name].checksums.items()}
            descriptor = os.open(self._names[file.path], os.O_WRONLY)
            try:
                for name in file.kept:
                    checksums[name] = self._copy(name, file, descriptor)
                header = file.sealed(checksums)
                write_at(descriptor, memoryview(header.raw), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            seals.append(header.metadata[model_file.SEAL])
        if self.conversion.index:
            held = {name: (file.path.name, tensor.nbytes) for file in self.conversion.files
                    for name, tensor in file.header.tensors.items()}
            index = shards.index_of({name: path for name, (path, _) in held.items()},
                                    sum(nbytes for _, nbytes in held.values()))
            path = self._names[self.conversion.index]
            path.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")
            _files.sync(path)
        return seals

    def are_sealed(self, seals):
        """Whether all files are complete, under their first name or their last; seals: of `finish`."""
        try:
            for file, seal in zip(self.conversion.files, seals, strict=True):
                path = self._names[file.path]
                mapped = model_file.MappedFile(path if path.exists() else file.path)
                if mapped.header.metadata[model_file.SEAL] != seal:
                    return False
                mapped.verify_all()
        except (OSError, ValueError):
            return False
        index = self.conversion.index
        return index is None or self._names[index].exists() or index.exists()

    def publish(self):
        """Give the files their names, the index last."""
        for path, partial in self._names.items():
            with contextlib.suppress(FileNotFoundError):  # it has been given
                os.replace(partial, path)
        _files.sync(self.conversion.head.parent)

    def remove_those_of(self, fingerprint):
        """Remove what another job has left of these files; a job of its fingerprint may be at work on others beside."""
        for partial in self.conversion.partial_paths(fingerprint).values():
            partial.unlink(missing_ok=True)

    def _copy(self, name, file, descriptor):
        """Copy a tensor from the source; returns its checksum."""
        source, tensor = self.conversion.source.tensors[name]
        return _copied(source, tensor, descriptor, file.header.tensors[name].start)


def _copied(path, tensor, descriptor, start):
    """The checksum of a tensor that is copied from a file to a place in another one."""
    digits = []
    with open(path, "rb", buffering=0) as opened:
        for piece in _pieces(opened, tensor):
            digits.append(model_file.checksum(piece))
            write_at(descriptor, memoryview(piece), start)
            start += len(piece)
    return "".join(digits)


def _size_of_own(path):
    """The bytes of a partial file; 0 where there is none, or something else in its place."""
    try:
        stat = os.lstat(path)
        _files.check_own(path, stat)
    except OSError:
        return 0
    return stat.st_size


def _pieces(file, tensor):
    """The bytes of a tensor, uint8 arrays of whole pieces of a checksum, each valid until the next."""
    buffer = np.empty(min(PIECE, tensor.nbytes), np.uint8)
    for start in range(0, tensor.nbytes, PIECE):
        piece = buffer[: tensor.nbytes - start]
        read_into(file, piece, tensor.start + start)
        yield piece


def _allocate(descriptor, nbytes):
    try:
        os.posix_fallocate(descriptor, 0, nbytes)
    except AttributeError:  # macOS
        pass
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # some file systems have none
            raise
    os.ftruncate(descriptor, nbytes)
