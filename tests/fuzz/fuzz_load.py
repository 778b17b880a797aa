#!/usr/bin/env python3
"""Fuzz `load`: the bytes are a file, and all that loads is used. Built and started by run.sh of this folder.

The mutator changes what a file says and holds, and mostly makes the checksums right again, so that what is behind them
is reached: the checks of descriptions and of packed headers, and kernels on panels of any values. Errors that `load`
states are fine; any other exception, a sanitizer's report, or a large allocation ends the run.
"""

import os
import pathlib
import random
import struct
import sys

import atheris
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["qkernels"]):
    import qkernels
    from qkernels import _core, entries, load, safetensors_format, save

import file_cases  # noqa: E402

ERRORS = (OSError, TypeError, ValueError)
LARGEST = 2**16  # rows and columns for which products are tried
PATH = f"/dev/shm/qkernels-fuzz-{os.getpid()}.safetensors"
ISAS = qkernels.cpu_info()["supported"]
VALUES = [0, 1, -1, 2, 3, 12, 16, 17, 31, 32, 33, 64, 255, 256, 2**24, 2**24 + 1, 2**31, 2**32, 2**53, 2**60, 2**62,
          2**63 - 1, 2**63, 2**64 - 1, 2**64, 1.0, 0.5, 1e308, True, False, None, "", "a", [], {}, [0], [0, 0], [1, 2]]
TEXTS = ["int8", "int4", "int2", "nf4", "codebook4", "log4", "binary", "ternary", "trellis2", "trellis3", "trellis4",
         "float16", "float32", "uint8", "weight", "packed_b", "statistics", "array", *safetensors_format.BITS,
         *map(entries.layout_id, file_cases.LAYOUTS), "nr1-kr1-bytes_signed0-lanes1", "nr16-kr2-n_unit16-bytes_signed1",
         "nr255-kr8-bytes_signed1-lanes255", "nr255-kr255-n_unit255-bytes_signed1"]
WORDS = [b"\xff\xff\xff\xff", b"\0\0\xc0\x7f", b"\0\x7e", b"\0\0\0\x80", b"\xff\xff\xff\x7f", b"\0\xfc"]  # NaN, ...
ADDED = ["seed", "window", "group_size", "k", "rows", "a"]


def use(value):
    """All that can be asked of an entry."""
    repr(value)
    if isinstance(value, np.ndarray):
        np.array(value)
    elif isinstance(value, qkernels.QuantizedWeight):
        n, k = value.shape
        if max(n, k) < LARGEST:
            value.to_state()
            value.dequantize()
            for rows, mode in ((1, "int8"), (3, "float32"), (40, "int8")):
                x = np.linspace(-1, 1, rows * k, dtype=np.float32).reshape(rows, k)
                qkernels.linear(x, value, activations=mode)
    elif isinstance(value, qkernels.QuantizedWeightStack):
        for weight in value:
            use(weight)
        value.to_state()
    elif isinstance(value, qkernels.PackedB):
        k, n = value.shape
        if max(n, k) < LARGEST:
            value.unpack()
            a = np.full((3, k), 255, np.uint8)
            qkernels.int8_gemm(a, value, a_zero_point=3)
            qkernels.int8_gemm(a, value, 0.5, a_zero_point=255, out_dtype="int8", out_scale=0.1)
    else:
        value.hessian, value.mean, value.to_state()


def test_one(data):
    pathlib.Path(PATH).write_bytes(data)
    _core.select_isa(ISAS[sum(data[-8:]) % len(ISAS)])
    try:
        model = load(PATH)
    except ERRORS as error:
        if PATH not in str(error):
            raise RuntimeError(f"does not name the file: {error}") from error
        return
    for name in model:
        try:
            model.shape(name)
            use(model[name])
            model.rows(name, [0, -1])
        except (*ERRORS, IndexError):
            pass


def mutate(data, max_size, seed):
    choose = random.Random(seed)
    try:
        header, start = file_cases.header_of(data)
        own = file_cases.own_of(header)
    except (KeyError, TypeError, ValueError, RecursionError, struct.error):
        return atheris.Mutate(data, len(data))
    values = data[start:]
    kind = choose.randrange(10)
    if kind == 0:
        return atheris.Mutate(data, max_size)
    if kind == 1:  # the text of the header as it comes
        return (file_cases.resealed(atheris.Mutate(data[8:start], start)) + values)[:max_size]
    if kind < 5 and values:  # what packed headers and panels hold
        values = changed_bytes(values, header, choose)
    elif kind < 9:
        change(own, choose)
    else:
        change(header, choose)
    try:
        return file_cases.sealed(header, values, own)[:max_size]
    except (AttributeError, TypeError, ValueError, RecursionError):  # what is left is no header
        return atheris.Mutate(data, len(data))


def changed_bytes(values, header, choose):
    """A few bytes in a tensor, in its first hundred as often as anywhere: there are headers and zero points."""
    places = [tensor["data_offsets"] for name, tensor in header.items() if "data_offsets" in tensor]
    begin, end = choose.choice(places)
    end = min(end, begin + 100) if choose.random() < 0.5 else end
    part = values[begin:end]
    if not part:
        return values
    if choose.random() < 0.3:
        at = choose.randrange(len(part))
        word = choose.choice(WORDS)
        part = (part[:at] + word + part[at + len(word) :])[: len(part)]
    else:
        part = atheris.Mutate(part, len(part)).ljust(end - begin, b"\0")
    return values[:begin] + part + values[end:]


def change(node, choose):
    """One thing somewhere in JSON: another value, one more, one less, or two that change places."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = choose.choice(keys)
        if not isinstance(node[key], (dict, list)) or not node[key] or choose.random() < 0.1:
            break
        node = node[key]
    way = choose.randrange(8)
    if way == 0:
        del node[key]
    elif way == 1:
        other = choose.choice(keys)
        node[key], node[other] = node[other], node[key]
    elif way == 2 and isinstance(node, dict):
        node[choose.choice([*ADDED, key + ".levels", key + ".sum"])] = node[key]
    elif way == 3 and type(node[key]) is int:
        node[key] += choose.choice([-32, -1, 1, 32])
    elif isinstance(node[key], str) and way != 4:
        node[key] = choose.choice(TEXTS)
    else:
        node[key] = choose.choice(VALUES)


def write_corpus(folder):
    """A file for each few entries, in the layout of this machine and in others."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {name: value for name, value in file_cases.every_kind().items() if name != "wide"}
    names = list(model)
    for i in range(0, len(names), 2):
        save(folder / f"own-{i}", {name: model[name] for name in names[i : i + 2]})
    for i, layout in enumerate(file_cases.LAYOUTS):
        for name in names:
            is_packed = isinstance(model[name], (qkernels.QuantizedWeight, qkernels.QuantizedWeightStack))
            if is_packed and name != "by row":
                file_cases.save_foreign(folder / f"layout{i}-{name}", {name: model[name]}, layout)
    save(folder / "many", model)


if __name__ == "__main__":
    write_corpus(pathlib.Path(next(argument for argument in sys.argv[1:] if not argument.startswith("-"))))
    atheris.Setup(sys.argv, test_one, custom_mutator=mutate)
    try:
        atheris.Fuzz()
    finally:
        pathlib.Path(PATH).unlink(missing_ok=True)
