"""One file of a model: what lies where, and how it is checked.

A file is a safetensors file whose metadata has, as JSON under "qkernels",

    version       of this, 1
    written_by    the version of qkernels
    entries       of each name what it is, see entries.py; packed forms name the ISA they are for, and its layout. A new kind
                  of entry is no new version: who does not know it says so, and reads all other files
    checksums     of each tensor the CRC-32 of every 64 KiB of it, as hexadecimal digits

and under "qkernels_checksum" the CRC-32 of the header, these eight digits counted as zeros. Packed forms come first, at
multiples of 64 bytes, then arrays by the size of their values, so that each lies aligned.
"""

import json
import math
import mmap
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import _files, entries, long_json, safetensors_format

VERSION = 1
KEY, SEAL = "qkernels", "qkernels_checksum"
OPEN_SEAL = f'"{SEAL}":"00000000"'.encode()
PIECE = 2**16  # bytes that a checksum is of
DIGITS = 8
FIRST = 2**24  # bytes of a file that the system is asked to read at once: packed forms, which are needed first
PREFETCH = getattr(mmap, "MADV_WILLNEED", None)
LONGEST_MESSAGE = 1000


class EntryPlace(NamedTuple):
    """Where an entry lies: for other processes, which do not have to read a header that may be that of thousands.

    Attributes
    ----------
    path : str
        Of the file, absolute.
    nbytes : int
        Of the file.
    name : str
    description : dict
    tensors : dict of str to Tensor
    checksums : dict of str to str
        Of the tensors.
    """

    path: str
    nbytes: int
    name: str
    description: dict
    tensors: dict
    checksums: dict

    def value(self):
        """The value of the entry, compared with its checksums.

        Raises
        ------
        OSError
            The file cannot be read, or was changed.
        ValueError
            The entry is damaged.
        """
        return MappedFile.at(self).entry(self.name, verify=True)


class MappedFile:
    """One file: its header, checked, and its bytes, mapped.

    Attributes
    ----------
    path : Path
    header : Header
    entries : dict of str to dict
        Descriptions.
    nbytes : int
    """

    def __init__(self, path):
        self.path = Path(path)
        try:
            with open(path, "rb") as file:
                if file.seek(0, 2):  # nothing cannot be mapped
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                    self.nbytes = len(self._map)
                    self._prefetch(0, FIRST)
                self.header = safetensors_format.read_header(file)
            self.entries, self._checksums = own_entries(self.header)
            if self.nbytes != len(self.header.raw) + sum(tensor.nbytes for tensor in self.header.tensors.values()):
                raise ValueError("changed while it was opened")
        except (ValueError, RecursionError) as error:
            raise ValueError(self._message(error)) from None
        self._unverified = _all_pieces(self._checksums)

    def place(self, name):
        """An EntryPlace."""
        description = self.entries[name]
        tensors = {name + suffix: tensor for suffix, tensor in
                   entries.parts(name, description, self.header.tensors).items()}
        return EntryPlace(str(self.path.resolve()), self.nbytes, name, description, tensors,
                          {tensor: self._checksums[tensor] for tensor in tensors})

    @classmethod
    def at(cls, place):
        """The file of an EntryPlace, with that entry alone and without the rest of its header."""
        file = cls.__new__(cls)
        file.path = Path(place.path)
        with open(place.path, "rb") as opened:
            file.nbytes = opened.seek(0, 2)
            if file.nbytes != place.nbytes:
                raise _files.FileError(file._message("was changed in the meantime"))
            file._map = mmap.mmap(opened.fileno(), file.nbytes, access=mmap.ACCESS_READ)
        file.header = safetensors_format.Header(place.tensors, {}, b"")
        file.entries, file._checksums = {place.name: place.description}, place.checksums
        file._unverified = _all_pieces(place.checksums)
        return file

    def keep_only(self, listed):
        """Leave out the entries of which an index lists no tensor here; listed: the names of those that it lists."""
        listed, kept = set(listed), {}
        for name, description in self.entries.items():
            own = {name + suffix for suffix in entries.parts(name, description, self.header.tensors)}
            if own <= listed:
                kept[name] = description
            elif own & listed:
                raise ValueError(self._message(f"{name}: the index lists {', '.join(sorted(own & listed))}, not "
                                               f"{', '.join(sorted(own - listed))}"))
        self.entries = kept
        self._unverified = {name: pieces for name, pieces in self._unverified.items() if name in listed}

    def entry(self, name, verify):
        """The value of an entry; of a stack each weight is compared with its checksums when it is asked for."""
        description = self.entries[name]
        if description["kind"] == "weights":
            own = entries.parts(name, description, self.header.tensors)
            return entries.make_stack(description, own, lambda suffix, one: self._value(name + suffix, one, verify))
        return self._value(name, description, verify)

    def _value(self, name, description, verify):
        """The value of tensors of these names."""
        tensors = {}
        for suffix in entries.parts(name, description, self.header.tensors):
            tensors[suffix] = self.array(name + suffix)
            if verify:
                self._verify(name + suffix, list(self._unverified[name + suffix]))
        try:
            return entries.make(description, tensors)
        except (TypeError, ValueError) as error:
            raise ValueError(self._message(f"{name}: {error}")) from None

    def array(self, name):
        """A tensor as a read-only array on the map."""
        tensor = self.header.tensors[name]
        try:
            dtype = _numpy_dtype(tensor.dtype)
            return np.frombuffer(self._map, dtype, math.prod(tensor.shape), tensor.start).reshape(tensor.shape)
        except (ImportError, TypeError, ValueError) as error:  # a dtype, or a shape of no values, that NumPy lacks
            raise type(error)(self._message(f"{name}: {error}")) from None

    def verify_all(self):
        """Compare all tensors with their checksums."""
        for name, pieces in self._unverified.items():
            self._verify(name, sorted(pieces))

    def rows(self, name, index, verify):
        """Rows of a tensor, after a check of the pieces that hold them."""
        array = self.array(name)
        if array.ndim == 0:
            raise IndexError(f"name: {name} is a scalar, it has no rows")
        used = np.unique(index)
        if used.size and not -len(array) <= used[0] <= used[-1] < len(array):
            raise IndexError(f"index: got {used[0]} to {used[-1]}, takes numbers of {len(array)} rows")
        if self._unverified[name]:
            row_bytes, start = array.itemsize * math.prod(array.shape[1:]), self.header.tensors[name].start
            pieces = set()
            for first in (row_bytes * (used % max(len(array), 1))).tolist():
                pieces.update(range(first // PIECE, -(-(first + row_bytes) // PIECE)))
            pieces &= self._unverified[name]
            for piece in pieces:  # all are asked for before one is waited for
                self._prefetch(start + piece * PIECE, PIECE)
            if verify:
                self._verify(name, pieces)
        return array[index]

    def _prefetch(self, start, nbytes):
        """Have the system begin to read some bytes, while this process goes on."""
        if PREFETCH is not None:
            start, end = start - start % mmap.ALLOCATIONGRANULARITY, min(start + nbytes, self.nbytes)
            self._map.madvise(PREFETCH, start, end - start)

    def _verify(self, name, pieces):
        tensor, digits = self.header.tensors[name], self._checksums[name]
        whole = memoryview(self._map)[tensor.start : tensor.start + tensor.nbytes]
        for piece in pieces:
            if checksum(whole[piece * PIECE : (piece + 1) * PIECE]) != digits[piece * DIGITS : (piece + 1) * DIGITS]:
                raise ValueError(self._message(
                    f"{name}: is damaged at bytes {piece * PIECE} to {min((piece + 1) * PIECE, tensor.nbytes)} of it: "
                    "they do not have their checksum"))
        self._unverified[name].difference_update(pieces)

    def _message(self, text):
        """With the file's name, and no longer than a message is, whatever the file says."""
        return f"{self.path}: {str(text)[:LONGEST_MESSAGE]}"


def _all_pieces(checksums):
    """The numbers of the pieces of each tensor."""
    return {name: set(range(len(digits) // DIGITS)) for name, digits in checksums.items()}


def checksum(data):
    """Of bytes: the digits of each piece."""
    data = memoryview(data).cast("B")
    return "".join(f"{zlib.crc32(data[i : i + PIECE]):08x}" for i in range(0, len(data), PIECE))


def checksum_digits(nbytes):
    """The digits of the checksum of so many bytes."""
    return DIGITS * -(-nbytes // PIECE)


def in_order(specs, aligned):
    """The names of tensors in the order of their bytes: those to be aligned, then by the size of a value."""
    return sorted(specs, key=lambda name: -safetensors_format.ALIGNMENT if name in aligned
                  else -(safetensors_format.BITS[specs[name][0]] // 8))


def seal(specs, metadata, descriptions, checksums):
    """The header of a file, with its own checksum.

    Parameters
    ----------
    specs : dict of str to (str, tuple of int)
        As `safetensors_format.lay_out` takes them.
    metadata : dict of str to str
        Of the user.
    descriptions : dict of str to dict
        Of the entries.
    checksums : dict of str to str
        Of the tensors; the header's length depends on nothing but their lengths.
    """
    from . import __version__

    own = json.dumps({"version": VERSION, "written_by": __version__, "entries": descriptions, "checksums": checksums},
                     separators=(",", ":"))
    header = safetensors_format.lay_out(specs, metadata | {KEY: own, SEAL: "0" * DIGITS})
    digits = f"{zlib.crc32(header.raw):08x}"
    closed = OPEN_SEAL.replace(b"0" * DIGITS, digits.encode())
    return header._replace(raw=header.raw.replace(OPEN_SEAL, closed, 1), metadata=header.metadata | {SEAL: digits})


def own_entries(header):
    """The entries and checksums of a file of qkernels, after a check that they are complete."""
    text = header.metadata.get(KEY)
    if text is None or SEAL not in header.metadata:
        raise ValueError("is a safetensors file, but not one of qkernels: python -m qkernels quantize makes one of it")
    given = header.metadata[SEAL].encode()
    raw = header.raw.replace(OPEN_SEAL.replace(b"0" * DIGITS, given), OPEN_SEAL, 1)
    if len(given) != DIGITS or given != b"%08x" % zlib.crc32(raw):
        raise ValueError("its header is damaged, or was changed by another program: it does not have its checksum")
    try:
        given, checksums = _read_own(text)
    except long_json.NoJSON as error:
        raise ValueError(f"metadata: {KEY}: is no JSON ({error})") from None
    if checksums.keys() != header.tensors.keys():
        raise ValueError("entries, checksums: take one for each tensor")
    for name, tensor in header.tensors.items():
        if len(checksums[name]) != checksum_digits(tensor.nbytes):
            raise ValueError(f"checksums: {name}: takes {checksum_digits(tensor.nbytes)} digits")
    own_tensors = []
    for name, description in given.items():
        own = entries.parts(name, description, header.tensors)
        own_tensors += [name + suffix for suffix in own]
        if not entries.is_complete(description, own):
            raise ValueError(f"entries: {name}: lacks its tensors")
    if sorted(own_tensors) != sorted(header.tensors):
        raise ValueError("entries: take each tensor once")
    return given, checksums


def _read_own(text):
    """The entries and the checksums of our own metadata."""
    head, strings = {}, {}

    def read(name, text, at):
        if name in ("version", "written_by"):
            head[name], at = long_json.read_value(text, at)
            return head[name], at
        _check_version(head)  # another one may have other things there
        if name not in ("entries", "checksums"):
            raise ValueError(f"metadata: {KEY}: has {name!r}, which is no part of it")
        return long_json.read_object(text, at, read_description if name == "entries" else _read_digits)

    def read_description(name, text, at):
        description, at = long_json.read_value(text, at)
        try:
            entries.checked_description(description)
        except ValueError as error:
            raise ValueError(f"entries: {name}: {error}") from None
        if description == entries.ARRAY:
            return entries.ARRAY, at
        # One string for all descriptions that have it.
        return {strings.setdefault(key, key): strings.setdefault(value, value) if isinstance(value, str) else value
                for key, value in description.items()}, at

    own, end = long_json.read_object(text, 0, read)
    long_json.check_end(text, end)
    _check_version(head)
    if "entries" not in own or "checksums" not in own:
        raise ValueError("entries, checksums: take one for each tensor")
    return own["entries"], own["checksums"]


def _read_digits(name, text, at):
    if text[at : at + 1] != '"':
        raise ValueError(f"checksums: {name}: takes digits")
    return long_json.read_string(text, at)


def _check_version(head):
    version = head.get("version")
    if type(version) is not int or version != VERSION:
        raise ValueError(f"version: got {version!r}, takes {VERSION}"
                         + (f"; it was written by qkernels {head['written_by']}" if "written_by" in head else ""))


def _numpy_dtype(dtype):
    """NumPy's, of a dtype in the words of the format."""
    if dtype in safetensors_format.NUMPY:
        return np.dtype(safetensors_format.NUMPY[dtype])
    if dtype not in safetensors_format.ML_DTYPES:
        raise TypeError(f"got dtype {dtype}, which NumPy has no arrays of")
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(f"arrays of {dtype} need ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(getattr(ml_dtypes, safetensors_format.ML_DTYPES[dtype]))
