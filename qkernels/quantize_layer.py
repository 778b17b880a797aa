"""The work on one layer of a checkpoint, in whichever process: read it, quantize it, write it to its place."""

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from . import _core, entries, model_file, sensitivity
from .checkpoint import SourceTensor
from .decibels import decibels
from .progress import quiet

BLOCK = 2**18  # values whose error is measured at a time, to stay in cache


class Layer(NamedTuple):
    """What a process has to know; it sees the same files.

    Attributes
    ----------
    name : str
    source : SourceTensor
    options : dict
        Of `quantize_weight`.
    calibration : EntryPlace or None
        Where the statistics of its inputs lie.
    layout : dict
        Of the packed form, whatever the ISA of the process that makes it.
    path : str
        The file that is written to.
    tensors : dict of str to Tensor
        Where the parts lie there, by what is added to the name.
    measure : bool
        Whether the SQNR is measured.
    version : str
        Of qkernels.
    """

    name: str
    source: SourceTensor
    options: dict
    calibration: model_file.EntryPlace | None
    layout: dict
    path: str
    tensors: dict
    measure: bool
    version: str


class Done(NamedTuple):
    """What is known of a layer that was written.

    Attributes
    ----------
    checksums : dict of str to str
        Of each part, by what is added to the name.
    energies : (float, float) or None
        Of the weight, and of its error; None where they were not measured.
    seconds : float
    """

    checksums: dict
    energies: tuple | None
    seconds: float

    @classmethod
    def of_line(cls, line):
        """Of what a journal has; see `is_of`."""
        return cls(*(line.get(field) for field in cls._fields))

    def is_of(self, parts):
        """Whether this, read from a file, can be of a layer with these parts, by what is added to its name."""
        return (isinstance(self.checksums, dict) and self.checksums.keys() == parts.keys()
                and all(isinstance(digits, str) for digits in self.checksums.values())
                and (self.energies is None or isinstance(self.energies, (list, tuple)) and len(self.energies) == 2
                     and all(map(_is_finite, self.energies))) and _is_finite(self.seconds))


class Refused(NamedTuple):
    """What is known of a layer that cannot be quantized: why, for people."""

    why: str


def _is_finite(number):
    return type(number) in (int, float) and math.isfinite(number)


def are_places(places, parts, size):
    """Whether this, read from a file, says where each of these parts starts in a file of so many bytes."""
    return (isinstance(places, dict) and places.keys() == parts.keys()
            and all(type(places[suffix]) is int and 0 <= places[suffix] <= size - part.nbytes
                    for suffix, part in parts.items()))


@_core.in_default_floating_mode
def quantize_layer(layer):
    """Quantize a layer, and write it to the disk. Doing it twice, or at the same time, does no harm.

    Parameters
    ----------
    layer : Layer

    Returns
    -------
    Done or Refused
        The latter where the values of the weight or of the statistics are bad, which says nothing about other layers.

    Raises
    ------
    OSError, MemoryError
        A file cannot be read or written, or so.
    ValueError
        A file is cut off, or this process has another qkernels.
    """
    from . import __version__

    if layer.version != __version__:
        raise ValueError(f"a worker has qkernels {__version__}, takes {layer.version}")
    start = time.perf_counter()
    w = layer.source.float32()
    try:
        statistics = None if layer.calibration is None else layer.calibration.value()
        with quiet():  # the bar is that of all layers
            weight = sensitivity.quantized(w, layer.options, statistics)
    except (TypeError, ValueError) as error:
        return Refused(str(error) + (", as float32" if layer.source.tensor.dtype == "F64" else ""))
    arrays = entries.weight_tensors(weight, layer.layout)
    checksums = {}
    descriptor = os.open(layer.path, os.O_WRONLY)
    try:
        for suffix, array in arrays.items():
            data = memoryview(np.ascontiguousarray(array)).cast("B")
            if len(data) != layer.tensors[suffix].nbytes:
                raise ValueError(f"has {len(data)} bytes{suffix}, takes {layer.tensors[suffix].nbytes}")
            checksums[suffix] = model_file.checksum(data)
            write_at(descriptor, data, layer.tensors[suffix].start)
        with ThreadPoolExecutor(1) as disk:  # which has the time of the SQNR
            synced = disk.submit(os.fsync, descriptor)
            measured = energies(w, weight) if layer.measure else None
            synced.result()
    finally:
        os.close(descriptor)
    return Done(checksums, measured, time.perf_counter() - start)


def write_at(descriptor, data, start):
    """Write all bytes of a memoryview to a place in a file."""
    while data:
        count = os.pwrite(descriptor, data, start)
        data, start = data[count:], start + count


def energies(w, weight):
    """Sums of squares of a float32 weight and of the error of its QuantizedWeight; the same on every processor."""
    rows_of = weight.dequantizer()
    step = max(BLOCK // max(w.shape[1], 1), 1)
    buffer = np.empty((step, w.shape[1]), np.float32)  # new memory for each block would take longer than all else
    signal = noise = 0.0
    for start in range(0, len(w), step):
        block = w[start : start + step]
        found = rows_of(slice(start, start + step), buffer[: len(block)])
        signal += _core.energy(_core.contiguous(block))
        noise += _core.energy(np.subtract(block, found, out=found))
    return signal, noise


def sqnr(signal, noise):
    """The ratio of two energies in dB; None where one of them is 0 or beyond float64."""
    ratio = signal / noise if noise else 0.0
    return decibels(ratio) if 0 < ratio < math.inf else None
