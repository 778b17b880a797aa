"""Quantized models as files, in use the moment they are mapped; model_file.py has their format."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import _arguments as arguments
from . import _files, entries, safetensors_format, shards
from .model_file import KEY, SEAL, MappedFile, checksum, in_order, seal


def save(path, model, *, metadata=None, layout=None):
    """Write a model to a file from which `load` uses it without reading it.

    Parameters
    ----------
    path : str or path-like
        The file, a safetensors file whatever its name; either written completely or left as it was.
    model : mapping of str to QuantizedWeight, QuantizedWeightStack, PackedB, InputStatistics or array
        By name, such as "encoder.layer.0.output.dense.weight". Arrays are stored as they are. A QuantizedModel, too.
    metadata : dict of str to str, optional
        Kept in the file, see `QuantizedModel.metadata`.
    layout : str, optional
        The name of an ISA, such as "neon_dotprod": packed forms are stored as its kernels take them, whatever this
        machine is. By default the selected ISA.

    Raises
    ------
    OSError
        It cannot be written; the disk is full, or so.
    TypeError
        A value is nothing that a file holds, or a dtype none that safetensors has.
    ValueError
        Two entries would or might have a tensor of the same name, such as a weight "w", which may have levels, and
        "w.levels"; a name is no Unicode text, or all of them are too long for a file; metadata has a key of the file's
        own; or layout is no ISA's name.

    Notes
    -----
    The bytes depend on the model, the metadata and the layout alone: a machine of that ISA writes the same. A file
    serves on any machine: where another layout is needed, `load` packs anew.

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
    isa = entries.checked_isa(layout, "layout")
    descriptions, arrays, aligned = {}, {}, set()
    for name in model:
        if not isinstance(name, str):
            raise TypeError(f"model: got the name {name!r}, takes strings")
        descriptions[name], tensors = entries.describe(model[name], f"model: {name}", isa)
        for suffix, array in tensors.items():
            arrays[name + suffix] = np.ascontiguousarray(array).reshape(array.shape)
        aligned.update(name + suffix for suffix in entries.packed_forms(descriptions[name]))
    entries.check_names(descriptions, "model")
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
        Whether each entry, of a stack each weight, is compared with its checksums when it is asked for, which reads it;
        a header is always.

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
    Of a sharded model the index is the authority: what shards hold besides, or what another one has in its place, is
    left out with a warning.

    Nothing is read but the header; the system brings pages when they are first used, shares them among all processes
    that use the file, and takes them back when memory is short. Packed weights are used where they lie, if their layout
    is that of the selected ISA; else each is packed anew, into memory of this process, when it is asked for.

    `save` replaces a file, it does not change it, so that a model that is in use stays as it was. If another program
    overwrites the file in place in the meantime, values change, and nothing else; if it cuts the file off, the system
    ends this process, as with any mapped file.
    """
    paths, weight_map = shards.shard_paths(path)
    files = {shard.name: MappedFile(shard) for shard in paths}
    listed, lines = shards.listed_tensors(path, weight_map, {name: file.header for name, file in files.items()})
    for name, file in files.items():
        file.keep_only(listed[name])
    for line in lines:
        warnings.warn(line, stacklevel=2)
    return QuantizedModel(path, list(files.values()), verify)


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
        """The QuantizedWeight, QuantizedWeightStack, PackedB or InputStatistics, or the read-only array of this name.

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

    def place(self, name):
        """Where an entry lies, from which another process has its value without reading a header.

        Returns
        -------
        model_file.EntryPlace
        """
        return self._files[name].place(name)

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


def checked_metadata(metadata):
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise TypeError("metadata: takes a dict of strings to strings")
    for key in (KEY, SEAL):
        if key in metadata:
            raise ValueError(f"metadata: {key!r} is the file's own")
    return metadata


def _dtype_of(array, name):
    """In the words of the format."""
    dtype = safetensors_format.OF_NUMPY.get(array.dtype.name)
    if dtype is None or not array.dtype.newbyteorder("=").isnative or array.dtype.byteorder == ">":
        raise TypeError(f"model: {name}: got dtype {array.dtype.str!r} ({array.dtype}), takes native ones of "
                        f"{', '.join(safetensors_format.OF_NUMPY)}")
    return dtype


def _bytes_of(array):
    return memoryview(array.reshape(-1).view(np.uint8))
