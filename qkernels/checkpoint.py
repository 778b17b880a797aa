"""Checkpoints to be quantized: the float tensors of a safetensors file, or of shards, read without mapping them.

Pages of a mapped file count as memory of the process; what is read here takes no more than the values.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import entries, model_file, safetensors_format, shards

FLOATS = ("F32", "F16", "BF16", "F64")  # that become float32
PIECE = 2**20  # bytes that are read at a time, of dtypes that have to be converted


class SourceTensor(NamedTuple):
    """A tensor of a checkpoint, wherever it is read: in this process or in one of another machine.

    Attributes
    ----------
    path : str
        Of its file, absolute.
    tensor : Tensor
        Its place there.
    """

    path: str
    tensor: safetensors_format.Tensor

    def matrices(self, name):
        """The matrices that it is, each by a name: itself, or those of a stack [E, N, K], numbered, as name.3."""
        if len(self.tensor.shape) == 2:
            return {name: self}
        count, *shape = self.tensor.shape
        nbytes = self.tensor.nbytes // count
        return {f"{name}.{i}": self._replace(tensor=self.tensor._replace(
            shape=tuple(shape), start=self.tensor.start + i * nbytes, nbytes=nbytes)) for i in range(count)}

    def float32(self):
        """The values as a float32 ndarray of their shape; those of F64 are rounded."""
        dtype, shape, start, nbytes = self.tensor
        values = np.empty(shape, np.float32)
        flat = values.reshape(-1)
        with open(self.path, "rb", buffering=0) as file:
            if dtype == "F32":
                read_into(file, flat.view(np.uint8), start)
                return values
            raw = np.empty(PIECE, np.uint8)
            size = safetensors_format.BITS[dtype] // 8
            for done in range(0, nbytes, PIECE):
                piece = raw[: nbytes - done]
                read_into(file, piece, start + done)
                _convert(piece, dtype, flat[done // size : (done + len(piece)) // size])
        return values


class Shard(NamedTuple):
    """A file of a checkpoint; its path is absolute, without symbolic links, its header without what is left out."""

    path: Path
    header: safetensors_format.Header


class Checkpoint:
    """What a checkpoint holds.

    Parameters
    ----------
    path : str or path-like
        A safetensors file, the index of a sharded checkpoint, or a folder that holds one of either.

    Attributes
    ----------
    path : Path
    index : Path or None
        Of a sharded checkpoint.
    shards : dict of str to Shard
        By file name.
    tensors : dict of str to SourceTensor
        In the order of the files and of their bytes; of shards those that the index has there.
    warnings : list of str
        For people.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError
        It is none, damaged, or quantized already; the message names the file.
    """

    def __init__(self, path):
        self.path = Path(path)
        paths, weight_map = shards.shard_paths(path)
        self.index = None if weight_map is None else shards.model_path(path)
        headers = {shard.name: _header(shard) for shard in paths}
        listed, self.warnings = shards.listed_tensors(path, weight_map, headers)
        self.shards = {shard.name: Shard(Path(os.path.realpath(shard)), _only(headers[shard.name], listed[shard.name]))
                       for shard in paths}
        self.tensors = {name: SourceTensor(str(shard.path), tensor) for shard in self.shards.values()
                        for name, tensor in shard.header.tensors.items()}


def _only(header, names):
    return header._replace(tensors={name: header.tensors[name] for name in names})


def _header(path):
    """The header of a file whose tensors are plain ones."""
    try:
        with open(path, "rb") as file:
            header = safetensors_format.read_header(file)
        if model_file.KEY in header.metadata:
            descriptions, _ = model_file.own_entries(header)
            if any(description != entries.ARRAY for description in descriptions.values()):
                raise ValueError("is quantized already")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    metadata = {name: text for name, text in header.metadata.items() if name not in (model_file.KEY, model_file.SEAL)}
    return header._replace(metadata=metadata)


def read_into(file, buffer, start):
    """Fill a uint8 array with the bytes of a file, opened without a buffer, from start on."""
    view = memoryview(buffer)
    file.seek(start)
    while view:
        count = file.readinto(view[: 2**30])  # the system takes less than 2 GiB at a time
        if not count:
            raise ValueError(f"{file.name}: was cut off while it was read")
        view = view[count:]


def _convert(raw, dtype, values):
    """Bytes of another dtype to float32."""
    if dtype == "BF16":  # the upper half of a float32
        np.left_shift(raw.view(np.uint16), np.uint32(16), out=values.view(np.uint32), dtype=np.uint32)
    else:
        with np.errstate(over="ignore"):  # an infinity is refused with those of the file
            values[...] = raw.view(safetensors_format.NUMPY[dtype])
