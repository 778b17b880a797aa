"""Models for files, with every kind of entry; their comparison; and files that were changed but are sealed again."""

import json
import re
import struct
import zlib

import cases
import numpy as np
from weight_cases import packed, weight

from qkernels import (
    PackedB, QuantizedWeight, QuantizedWeightStack, _core, entries, model_file, pack_b, safetensors_format)
from qkernels.calibration import InputStatistics

# Of weights, and of packed right-hand sides: what every machine writes, which the tests write on any, and one more.
LAYOUTS = {name: (layout, _core.b_layouts()[name]) for name, layout in _core.weight_layouts().items()
           if name != "avx512vbmi"}  # as avx512vnni
LAYOUTS["none yet"] = ({"nr": 32, "kr": 4, "bytes_signed": 1, "lanes": 4},
                       {"nr": 32, "kr": 2, "n_unit": 16, "bytes_signed": 0})


def array(seed, shape, dtype):
    """Any bytes, but of booleans."""
    if dtype == np.bool_:
        return cases.ints(seed, shape, 0, 1).astype(bool)
    size = np.dtype(dtype).itemsize
    return cases.bytes8(seed, (cases.size_of(shape) * size,), np.uint8).view(dtype).reshape(shape)


def statistics(k=12, rows=9):
    return InputStatistics(k).observe(cases.floats(5, (rows, k)))


def with_inputs(w, **others):
    """The weight of weight_cases with a seed, or with input_scales."""
    stream = {"k": w.integers().shape[1], "window": w.window} if (w.format or "").startswith("trellis") else {}
    return QuantizedWeight(w.format or f"int{w.bits}", w.codes, w.scales, w.zero_points, w.group_size, levels=w.table,
                           **stream, **others)


def stack(seed, count, *others):
    """Weights of weight_cases as a stack."""
    return QuantizedWeightStack([packed(weight(seed + i, *others)) for i in range(count)])


def some_scaled():
    """A stack with tables, in which only some weights have input scales."""
    scales = [None, cases.scales(20, (33,), 1.0)]
    return QuantizedWeightStack([with_inputs(weight(21 + i, 5, 33, "codebook4 by row"), input_scales=scales[i % 2])
                                 for i in range(3)])


def every_kind():
    """A small model that has all that an entry can be."""
    model = {
        "int8": packed(weight(1, 5, 40, "int8", 32, False, "float32")),
        "int4.scaled": with_inputs(weight(2, 18, 70, "int4", 32), input_scales=cases.scales(3, (70,), 1.0)),
        "int2.rotated": with_inputs(weight(3, 17, 64, "int2", None), seed=2**64 - 1),
        "nf4": packed(weight(4, 3, 33, "nf4", 32)),
        "by row": packed(weight(5, 17, 96, "codebook4 by row", 32)),
        "signs": packed(weight(6, 9, 65, "binary")),
        "ternary": packed(weight(7, 9, 65, "ternary", 32)),
        "fast": packed(weight(8, 4, 70, "trellis3", 32)),
        "fine": packed(weight(9, 4, 70, "trellis2 12")),
        "no rows": packed(weight(10, 0, 40)),
        "no columns": packed(weight(11, 5, 0)),
        "experts": stack(17, 3, 6, 40, "int4", 32),
        "some scaled": some_scaled(),
        "b": pack_b(cases.bytes8(12, (13, 21), np.uint8), b_zero_point=cases.ints(13, (21,), 0, 255)),
        "no b": pack_b(np.zeros((3, 0), np.int8)),
        "seen": statistics(),
        "bias": cases.floats(14, (5,)),
        "": np.float64(0.5) * np.ones(()),
        "flags": np.array([True, False]),
        "näme \U0001f600\n": array(15, (3, 0, 2), np.int32),
        "wide": array(16, (40, 500), np.float32),  # two pieces of a checksum
    }
    return model


def to_arrays(value):
    """All that an entry holds, as arrays."""
    if isinstance(value, (QuantizedWeight, QuantizedWeightStack)):
        return value.to_state() | {"w": value.dequantize()}
    if isinstance(value, PackedB):
        return {"b": value.unpack(), "zero_point": value.zero_point}
    return value.to_state() if isinstance(value, InputStatistics) else {"": np.asarray(value)}


def assert_same_value(got, want, what=""):
    """Of the same type, and alike in every bit that it holds."""
    if isinstance(want, (QuantizedWeight, QuantizedWeightStack, PackedB, InputStatistics)):
        assert type(got) is type(want), what
    got, want = to_arrays(got), to_arrays(want)
    assert list(got) == list(want), what
    for name, entry in want.items():
        assert (got[name].dtype, got[name].shape) == (entry.dtype, entry.shape), (what, name)
        assert got[name].tobytes() == entry.tobytes(), (what, name)


def packed_b_memory(b, zero_point, layout):
    """A PackedB in any layout, by its definition in csrc/packed_b.h."""
    (k, n), nr, kr, unit = b.shape, layout["nr"], layout["kr"], layout["n_unit"]
    low, high = cases.LIMITS[b.dtype.type]
    flip = 0 if (low < 0) == layout["bytes_signed"] else 0x80
    moved = zero_point.astype(np.int64) + (0 if not flip else 128 if low < 0 else -128)
    steps, padded_n = -(-k // kr), n // nr * nr + -(-(n % nr) // unit) * unit

    def whole(part):
        return part + bytes(-len(part) % 64)

    panels = []
    for col in range(0, padded_n, nr):
        width = min(nr, padded_n - col)
        panel = np.zeros((steps * kr, width), np.uint8)
        columns = b[:, col : col + width].view(np.uint8) ^ flip
        panel[:k, : columns.shape[1]] = columns
        panels.append(whole(panel.reshape(steps, kr, width).transpose(0, 2, 1).tobytes()))
    pad = np.zeros(padded_n - n, np.int64)
    sums = b.sum(axis=0, dtype=np.int64) - zero_point * k
    parts = [whole(np.append(column, pad).astype("<i4").tobytes()) for column in (moved, sums)]
    offsets = 128, 128 + len(parts[0]), 128 + len(parts[0]) + len(parts[1])
    magnitude = max((high - zero_point).max(initial=0), (zero_point - low).max(initial=0))
    panel_bytes = -(-steps * nr * kr // 64) * 64
    header = struct.pack("<7QIi6B2x", k, n, padded_n, *offsets, panel_bytes, steps, magnitude, nr, kr, unit, flip,
                         int(low < 0), int((moved != 0).any()))
    return np.frombuffer(whole(header) + b"".join(parts + panels), np.uint8)


def save_foreign(path, model, layout, b_layout=None):
    """As a machine whose kernels take these layouts writes it; seals as `save` does."""
    descriptions, tensors, aligned = {}, {}, set()
    for name, value in model.items():
        descriptions[name], own = entries.describe(value, name)
        if isinstance(value, (QuantizedWeight, QuantizedWeightStack)):
            weights = value if isinstance(value, QuantizedWeightStack) else [value]
            own |= {suffix: one.repacked(layout).memory
                    for one, suffix in zip(weights, entries.packed_forms(descriptions[name]), strict=True)}
            descriptions[name] |= {"layout": entries.layout_id(layout), "isa": "another"}
        elif isinstance(value, PackedB) and b_layout is not None:
            own[""] = packed_b_memory(value.unpack(), value.zero_point, b_layout)
            descriptions[name] |= {"layout": entries.layout_id(b_layout), "isa": "another"}
        aligned.update(name + suffix for suffix in entries.packed_forms(descriptions[name]))
        tensors |= {name + suffix: array for suffix, array in own.items()}
    specs = {name: (safetensors_format.OF_NUMPY[array.dtype.name], array.shape) for name, array in tensors.items()}
    order = model_file.in_order(specs, aligned)
    checksums = {name: model_file.checksum(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8)) for name in order}
    header = model_file.seal({name: specs[name] for name in order}, {}, descriptions, checksums)
    path.write_bytes(header.raw + b"".join(tensors[name].tobytes() for name in order))


def header_of(raw):
    """The header of a file's bytes as JSON, and its length with the number before it."""
    length, = struct.unpack_from("<Q", raw)
    return json.loads(raw[8 : 8 + length]), 8 + length


def own_of(header):
    """What qkernels says in a header."""
    return json.loads(header["__metadata__"]["qkernels"])


def checksums_of(header, data):
    """The right ones, as far as what the header says makes sense."""
    made = {}
    for name, tensor in header.items():
        try:
            begin, end = tensor["data_offsets"]
            part = data[max(begin, 0) : max(end, 0)]
        except (KeyError, TypeError, ValueError):
            continue
        made[name] = "".join(f"{zlib.crc32(part[i : i + 2**16]):08x}" for i in range(0, len(part), 2**16))
    return made


def sealed(header, data, own=None, *, checksums=True):
    """A file's bytes with all checksums right: own, if given, replaces what qkernels says."""
    header = dict(header)
    metadata = header["__metadata__"] = dict(header.get("__metadata__") or {})
    own = own_of(header) if own is None else own
    if checksums and isinstance(own, dict) and isinstance(own.get("checksums"), dict):
        own = own | {"checksums": checksums_of({k: v for k, v in header.items() if k != "__metadata__"}, data)}
    metadata["qkernels"] = own if isinstance(own, str) else json.dumps(own)
    return resealed(json.dumps(header).encode()) + data


def resealed(text):
    """The header of this JSON text with the right checksum of itself, its length before it."""
    opened = re.sub(rb'"qkernels_checksum": ?"[^"]*"', b'"qkernels_checksum":"00000000"', text, count=1)
    opened += b" " * (-(8 + len(opened)) % 64)
    raw = struct.pack("<Q", len(opened)) + opened
    return raw.replace(b'"qkernels_checksum":"00000000"', b'"qkernels_checksum":"%08x"' % zlib.crc32(raw), 1)
