"""Quantized models as files: in use the moment they are mapped.

A file is a safetensors file whose metadata has, as JSON under "qkernels",

    version       of this, 1
    written_by    the version of qkernels
    entries       of each name what it is, see entries.py; packed forms name their layout and ISA
    checksums     of each tensor the CRC-32 of every 64 KiB of it, as hexadecimal digits

and under "qkernels_checksum" the CRC-32 of the header, these eight digits counted as zeros. Packed forms come first, at
multiples of 64 bytes, then arrays by the size of their values, so that each lies aligned.
"""

import json
import math
import mmap
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import _arguments as arguments
from . import _files, entries, safetensors_format, shards

VERSION = 1
KEY, SEAL = "qkernels", "qkernels_checksum"
OPEN_SEAL = f'"{SEAL}":"00000000"'.encode()
PIECE = 2**16  # bytes that a checksum is of
DIGITS = 8
FIRST = 2**24  # bytes of a file that the system is asked to read at once: packed forms, which are needed first
PREFETCH = getattr(mmap, "MADV_WILLNEED", None)
LONGEST_MESSAGE = 1000


def save(path, model, *, metadata=None):
    """Write a model to a file from which `load` uses it without reading it.

    Parameters
    ----------
    path : str or path-like
        The file, a safetensors file whatever its name; either written completely or left as it was.
    model : mapping of str to QuantizedWeight, PackedB, InputStatistics or array
        By name, such as "encoder.layer.0.output.dense.weight". Arrays are stored as they are. A QuantizedModel, too.
    metadata : dict of str to str, optional
        Kept in the file, see `QuantizedModel.metadata`.

    Raises
    ------
    OSError
        It cannot be written; the disk is full, or so.
    TypeError
        A value is nothing that a file holds, or a dtype none that safetensors has.
    ValueError
        Two entries would have a tensor of the same name, such as "w" with levels and "w.levels"; or metadata has a key
        of the file's own.

    Notes
    -----
    Weights are stored in the layout that they are packed in, the selected ISA's as a rule. A file serves on any
    machine: where another layout is needed, `load` packs anew.

    Examples
    --------
    >>> import os, tempfile, numpy as np, qkernels
    >>> path = os.path.join(tempfile.mkdtemp(), "layer.safetensors")
    >>> qw = qkernels.quantize_weight(np.eye(64, dtype=np.float32), "int4", group_size=32)
    >>> qkernels.save(path, {"weight": qw, "bias": np.zeros(64, np.float32)})
    >>> model = qkernels.load(path)
    >>> list(model), model["weight"].format, model["bias"].shape
    (['weight', 'bias'], 'int4', (64,))
    """
    if not isinstance(model, Mapping):
        raise TypeError(f"model: got {type(model).__name__}, takes a mapping of names to values")
    descriptions, arrays, aligned = {}, {}, set()
    for name in model:
        if not isinstance(name, str):
            raise TypeError(f"model: got the name {name!r}, takes strings")
        descriptions[name], tensors = entries.describe(model[name], f"model: {name}")
        for suffix, array in tensors.items():
            if name + suffix in arrays:
                raise ValueError(f"model: {name + suffix} is there twice, as an entry and as a part of one")
            arrays[name + suffix] = np.ascontiguousarray(array).reshape(array.shape)
            if suffix == "" and descriptions[name]["kind"] in entries.PACKED:
                aligned.add(name)
    specs = {name: (_dtype_of(array, name), array.shape) for name, array in arrays.items()}
    order = in_order(specs, aligned)
    checksums = {name: checksum(_bytes_of(arrays[name])) for name in order}
    header = seal({name: specs[name] for name in order}, checked_metadata(metadata), descriptions, checksums)
    with _files.replacing(path) as partial, open(partial, "wb") as file:
        file.write(header.raw)
        for name in order:
            file.write(_bytes_of(arrays[name]))


def load(path, *, verify=True):
    """A model from a file, mapped into memory.

    Parameters
    ----------
    path : str or path-like
        A file of `save` or of ``python -m qkernels quantize``; of a sharded model its index, or its folder.
    verify : bool, default True
        Whether each entry is compared with its checksums when it is asked for, which reads it; a header is always.

    Returns
    -------
    QuantizedModel

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is no file of qkernels, one of a later version, or damaged; the message names the file.

    Notes
    -----
    Nothing is read but the header; the system brings pages when they are first used, shares them among all processes
    that use the file, and takes them back when memory is short. Packed weights are used where they lie, if their layout
    is that of the selected ISA; else each is packed anew, into memory of this process, when it is asked for.

    `save` replaces a file, it does not change it, so that a model that is in use stays as it was. If another program
    cuts the file off in the meantime, the system ends this process, as with any mapped file.
    """
    paths, weight_map = shards.shard_paths(path)
    files = [MappedFile(shard) for shard in paths]
    shards.check_tensors(path, weight_map, {file.path.name: file.header for file in files})
    return QuantizedModel(path, files, verify)


class QuantizedModel(Mapping):
    """What `load` gives: a mapping of names to weights and arrays, which are made when they are asked for.

    Attributes
    ----------
    path : Path
        As given to `load`.
    metadata : dict of str to str
        As given to `save`.
    descriptions : dict of str to dict
        What each entry is.
    nbytes : int
        Bytes of the file or files.
    """

    def __init__(self, path, files, verify=True):
        self.path = Path(path)
        self.verify = bool(verify)
        self.metadata = {key: text for file in files for key, text in file.header.metadata.items()
                         if key not in (KEY, SEAL)}
        self.descriptions = {name: description for file in files for name, description in file.entries.items()}
        self.nbytes = sum(file.nbytes for file in files)
        self._files = {name: file for file in files for name in file.entries}
        self._made = {}

    def __getitem__(self, name):
        """The QuantizedWeight, PackedB or InputStatistics, or the read-only array of this name.

        Raises
        ------
        KeyError
            There is none.
        ValueError
            It is damaged.
        ImportError
            It is an array of a dtype of ml_dtypes, which is not installed.
        """
        if name not in self._made:
            made = self._files[name].entry(name, self.verify)
            self._made.setdefault(name, made)  # another thread may have been faster: all get the same
        return self._made[name]

    def shape(self, name):
        """The shape of an entry, which is not made for that; of statistics rows and values in each."""
        description = self.descriptions[name]
        if description["kind"] == "statistics":
            return description["rows"], description["k"]
        return tuple(description["shape"]) if "shape" in description else self._files[name].header.tensors[name].shape

    def parts(self, name):
        """Where the tensors of an entry lie in its file, by what is added to its name.

        Returns
        -------
        dict of str to safetensors_format.Tensor
        """
        return entries.parts(name, self.descriptions[name], self._files[name].header.tensors)

    def verify_all(self):
        """Compare everything with its checksums, which reads all that was not compared before.

        Raises
        ------
        ValueError
            A part is damaged; the message names it.
        """
        for file in dict.fromkeys(self._files.values()):
            file.verify_all()

    def __contains__(self, name):
        return name in self.descriptions  # Mapping's own would make the entry

    def rows(self, name, index):
        """Rows of an array, such as those of an embedding: only the parts of the file where they lie are read.

        Parameters
        ----------
        name : str
            Of an array.
        index : integer array
            Of any shape.

        Returns
        -------
        ndarray
            ``model[name][index]``.

        Raises
        ------
        KeyError
            There is no such entry.
        TypeError
            The entry is no array, or index no integers.
        IndexError
            A row is not there.
        ValueError
            A part that was read is damaged.
        """
        if self.descriptions[name] != entries.ARRAY:
            raise TypeError(f"name: {name} is a {self.descriptions[name]['kind']}, takes an array")
        index = arguments.parameter(index, "index")
        if index.dtype.kind not in "iu":
            raise TypeError(f"index: got dtype {index.dtype}, takes integers")
        if index.dtype == np.uint64 and index.max(initial=0) >= 2**63:  # NumPy would take it for a negative one
            raise IndexError(f"index: got {index.max()}, takes numbers of rows of {self.shape(name)}")
        return self._files[name].rows(name, index.astype(np.int64), self.verify)

    def __iter__(self):
        return iter(self.descriptions)

    def __len__(self):
        return len(self.descriptions)

    def __repr__(self):
        return f"<QuantizedModel {self.path}: {len(self)} entries, {self.nbytes} bytes>"


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
        self._unverified = {name: set(range(len(digits) // DIGITS)) for name, digits in self._checksums.items()}

    def entry(self, name, verify):
        """The value of an entry."""
        description = self.entries[name]
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
    closed = OPEN_SEAL.replace(b"0" * DIGITS, b"%08x" % zlib.crc32(header.raw))
    return header._replace(raw=header.raw.replace(OPEN_SEAL, closed, 1))


def checked_metadata(metadata):
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise TypeError("metadata: takes a dict of strings to strings")
    for key in (KEY, SEAL):
        if key in metadata:
            raise ValueError(f"metadata: {key!r} is the file's own")
    return metadata


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
        own = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"metadata: {KEY}: is no JSON ({error})") from None
    version = own.get("version") if isinstance(own, dict) else None
    if type(version) is not int or version != VERSION:
        raise ValueError(f"version: got {version!r}, takes {VERSION}"
                         + (f"; it was written by qkernels {own.get('written_by')}" if isinstance(own, dict) else ""))
    given, checksums = own.get("entries"), own.get("checksums")
    if not isinstance(given, dict) or not isinstance(checksums, dict) or checksums.keys() != header.tensors.keys():
        raise ValueError("entries, checksums: take one for each tensor")
    for name, tensor in header.tensors.items():
        if not isinstance(checksums[name], str) or len(checksums[name]) != checksum_digits(tensor.nbytes):
            raise ValueError(f"checksums: {name}: takes {checksum_digits(tensor.nbytes)} digits")
    own_tensors = []
    for name, description in given.items():
        try:
            entries.checked_description(description)
        except ValueError as error:
            raise ValueError(f"entries: {name}: {error}") from None
        own_tensors += [name + suffix for suffix in entries.parts(name, description, header.tensors)]
        if name + entries.suffixes(description)[0] not in header.tensors:
            raise ValueError(f"entries: {name}: has no tensor")
    if sorted(own_tensors) != sorted(header.tensors):
        raise ValueError("entries: take each tensor once")
    return given, checksums


def _dtype_of(array, name):
    """In the words of the format."""
    dtype = safetensors_format.OF_NUMPY.get(array.dtype.name)
    if dtype is None or not array.dtype.newbyteorder("=").isnative or array.dtype.byteorder == ">":
        raise TypeError(f"model: {name}: got dtype {array.dtype.str!r} ({array.dtype}), takes native ones of "
                        f"{', '.join(safetensors_format.OF_NUMPY)}")
    return dtype


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


def _bytes_of(array):
    return memoryview(array.reshape(-1).view(np.uint8))
