"""The safetensors format: a header that says where each tensor lies, and their bytes one after the other.

    bytes of the header, uint64 | header, JSON filled up with spaces | tensor | tensor | ...

The package of that name reads these files, too. It does not let its users say where tensors start; here the first one
is at a multiple of 64, so that what the kernels use from the map is aligned, and a header is checked in all that it
says before any of it is used.
"""

import json
import math
import struct
from itertools import pairwise
from typing import NamedTuple

from . import long_json

ALIGNMENT = 64
LARGEST_HEADER = 100_000_000  # of the format
LENGTH = struct.Struct("<Q")
METADATA = "__metadata__"

# Bits of a value of each dtype, and NumPy's name; those of ml_dtypes are no part of it.
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
        "U16": 16, "U8": 8, "BOOL": 8, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
DTYPES = {dtype: dtype for dtype in BITS}  # one string for all tensors
NUMPY = {"F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "I16": "int16",
         "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
         "C64": "complex64"}
ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
             "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"}
OF_NUMPY = {name: dtype for dtype, name in (NUMPY | ML_DTYPES).items()}


class Tensor(NamedTuple):
    """Where a tensor lies.

    Attributes
    ----------
    dtype : str
        In the format's words, a key of `BITS`.
    shape : tuple of int
    start, nbytes : int
        In the file.
    """

    dtype: str
    shape: tuple
    start: int
    nbytes: int


class Header(NamedTuple):
    """What a file says of itself.

    Attributes
    ----------
    tensors : dict of str to Tensor
        In the order of their bytes.
    metadata : dict of str to str
    raw : bytes
        The header as it stands in the file, its length included; the first tensor follows.
    """

    tensors: dict
    metadata: dict
    raw: bytes


def lay_out(tensors, metadata):
    """The header of a file.

    Parameters
    ----------
    tensors : dict of str to (str, tuple of int)
        Dtype and shape of each, in the order of their bytes.
    metadata : dict of str to str

    Returns
    -------
    Header

    Raises
    ------
    ValueError
        It is larger than the format allows, or a name is none that it can hold.
    """
    if METADATA in tensors:
        raise ValueError(f"{METADATA}: is no name for a tensor, a safetensors file has its metadata there")
    described, end = {METADATA: metadata} if metadata else {}, 0
    for name, (dtype, shape) in tensors.items():
        long_json.check_unicode(name)
        begin, end = end, end + math.prod(shape) * BITS[dtype] // 8
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    for pair in metadata.items():
        long_json.check_unicode("".join(pair))
    text = json.dumps(described, separators=(",", ":")).encode()  # ASCII
    text += b" " * (-(LENGTH.size + len(text)) % ALIGNMENT)
    if len(text) > LARGEST_HEADER:
        raise ValueError(f"the names and metadata of {len(tensors)} tensors take {len(text)} bytes, a safetensors file "
                         f"has {LARGEST_HEADER} for them")
    raw = LENGTH.pack(len(text)) + text
    places = {}
    for name, (dtype, shape) in tensors.items():
        begin, end = described[name]["data_offsets"]
        places[name] = Tensor(dtype, tuple(shape), len(raw) + begin, end - begin)
    return Header(places, dict(metadata), raw)


def read_header(file):
    """The header of a file.

    Parameters
    ----------
    file : binary file
        Open for reading, at its start.

    Returns
    -------
    Header

    Raises
    ------
    ValueError
        It is no safetensors file, or a damaged one: what it says does not fit together or to the file's size.
    """
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(LENGTH.size)
    if len(start) < LENGTH.size:
        raise ValueError(f"is no safetensors file: it has {size} bytes")
    length, = LENGTH.unpack(start)
    if length > min(LARGEST_HEADER, size - LENGTH.size):
        raise ValueError(f"is no safetensors file, or cut off: a header of {length} bytes in a file of {size}")
    file.seek(0)
    raw = file.read(LENGTH.size + length)
    if len(raw) < LENGTH.size + length:
        raise ValueError("was cut off while it was read")
    tensors, metadata = _read(raw)
    end = len(raw)
    for name, tensor in tensors.items():
        if tensor.start != end:
            raise ValueError(f"{name}: starts at byte {tensor.start}, takes {end}, where the one before ends")
        end += tensor.nbytes
    if end != size:
        raise ValueError(f"is cut off or damaged: it has {size} bytes, its header says {end}")
    return Header(tensors, metadata, raw)


def _read(raw):
    """The tensors, in the order of their bytes, and the metadata of a header."""

    def read(name, text, at):
        if name == METADATA:
            return long_json.read_object(text, at, _read_metadata)
        entry, at = long_json.read_value(text, at)
        return _tensor(name, entry, len(raw)), at

    try:
        text = str(memoryview(raw)[LENGTH.size :], "utf-8")
        tensors, end = long_json.read_object(text, 0, read)
        long_json.check_end(text, end)
    except (long_json.NoJSON, UnicodeDecodeError) as error:
        raise ValueError(f"is no safetensors file, or damaged: its header is no JSON ({error})") from None
    metadata = tensors.pop(METADATA, {})
    places = [(tensor.start, tensor.nbytes) for tensor in tensors.values()]
    if any(later < earlier for earlier, later in pairwise(places)):
        tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)))
    return tensors, metadata


def _read_metadata(_, text, at):
    if text[at : at + 1] != '"':
        raise ValueError(f"{METADATA}: takes strings")
    return long_json.read_string(text, at)


def _tensor(name, entry, start):
    """What the header says of one tensor; start: of the first one."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name}: takes dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        got = repr(dtype) if isinstance(dtype, str) else type(dtype).__name__
        raise ValueError(f"{name}: got dtype {got}, takes one of {', '.join(BITS)}")
    for numbers, what, most in [(shape, "shape", 64), (offsets, "data_offsets", 2)]:  # as many dimensions as NumPy has
        if not isinstance(numbers, list) or len(numbers) > most or not all(
                type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise ValueError(f"{name}: {what}: takes a list of up to {most} integers from 0 to 2**63 - 1")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name}: data_offsets: got {offsets}, takes a begin and an end")
    nbytes = offsets[1] - offsets[0]
    bits = math.prod(shape) * BITS[dtype]
    if 8 * nbytes != bits:
        raise ValueError(f"{name}: has {8 * nbytes} bits, its dtype and shape {dtype} {shape} take {bits}")
    return Tensor(DTYPES[dtype], tuple(shape), start + offsets[0], nbytes)
