"""Another program overwrites a mapped file in place: values change, and nothing else.

What a weight is was checked when it was loaded, and is kept apart from the map. A script of its own overwrites and
computes, because what is wrong here ends the process.
"""

import os
import pickle
import subprocess
import sys

import cases
import numpy as np
import pytest
from file_cases import every_kind, to_arrays
from weight_cases import MODES, packed, weight

import qkernels
from qkernels import PackedB, QuantizedWeight, QuantizedWeightStack, _core, load, pack_b, save


def test_values_change_and_nothing_else(isa, tmp_path):
    done = subprocess.run([sys.executable, __file__, str(tmp_path)], env=os.environ | {"QKERNELS_ISA": isa},
                          capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "survived\n"), (done.returncode, done.stderr)


@pytest.mark.any_isa
def test_memory_that_holds_no_packed_form():
    """It is refused for what it is, before anything is read of it."""
    qw, b = packed(weight(1, 70, 64)), pack_b(cases.bytes8(2, (70, 40), np.int8))
    for whole, make in [
        (qw.packed.memory, lambda memory, **others: QuantizedWeight.from_memory(
            memory, "int4", **{"shape": qw.shape, "layout": qw.packed.layout, "group_size": None, "scale_dtype": "float16",
                               "has_zero_points": False} | others)),
        (b.memory, lambda memory, shape=b.shape, layout=b.layout: PackedB.of_memory(memory, *shape, b.dtype, layout)),
    ]:
        made = make(whole)
        for got, want in zip(to_arrays(made).values(), to_arrays(qw if whole is qw.packed.memory else b).values(),
                             strict=True):
            assert got.tobytes() == want.tobytes()
        wide = _core.aligned_memory(2 * len(whole) + 64)
        shifted, strided = wide[1 : 1 + len(whole)], wide[: 2 * len(whole) : 2]
        shifted[:] = whole
        cases.raises(ValueError, "memory", make, shifted)
        strided[:] = whole
        cases.raises(ValueError, "memory", make, strided)
        cases.raises(ValueError, "memory", make, whole[::-1])
        cases.raises(ValueError, "memory", make, np.lib.stride_tricks.as_strided(whole, whole.shape, (0,)))
        cases.raises(ValueError, "memory", make, whole.view(np.int8))
        cases.raises(ValueError, "memory", make, whole.view(np.uint64))
        cases.raises(ValueError, "memory", make, whole.reshape(1, -1))
        cases.raises(TypeError, "memory", make, whole.tobytes())
        cases.raises(TypeError, "memory", make, None)
    for end in (64, -64, 0):
        cases.raises(ValueError, "memory", QuantizedWeight.from_memory, qw.packed.memory[:end], "int4", qw.shape,
                     qw.packed.layout, group_size=None, scale_dtype="float16", has_zero_points=False)
        assert PackedB.of_memory(b.memory[:end], *b.shape, b.dtype, b.layout) is None
    for name, wrong in [("shape", (-1, 64)), ("shape", (2**70, 64)), ("shape", (1.5, 64)), ("shape", (64,)), ("shape", 64),
                        ("layout", {"nr": 4}), ("layout", qw.packed.layout | {"nr": 300}), ("layout", None)]:  # fmt: skip
        own = {"shape": qw.shape, "layout": qw.packed.layout} | {name: wrong}
        cases.raises((TypeError, ValueError), name, QuantizedWeight.from_memory, qw.packed.memory, "int4", **own,
                     group_size=None, scale_dtype="float16", has_zero_points=False)


# ------------------------------------------------------------------------------------------- the script


def results(value):
    """What every consumer of an entry's memory makes of it; None where it refuses the values."""

    def made(call, *args, **options):
        try:
            return call(*args, **options)
        except ValueError:
            return None

    if isinstance(value, QuantizedWeight):
        n, k = value.shape
        for rows in (1, 3, 40):
            for mode in MODES:
                yield made(qkernels.linear, cases.floats(1, (rows, k)), value, **mode)
        yield made(value.dequantize)
        yield from value.to_state().values()
        yield value.scales
        yield value.zero_points
        repacked = made(value.repacked, _core.weight_layouts()["neon_i8mm"])
        yield None if repacked is None else repacked.memory
        yield pickle.dumps(value)
    elif isinstance(value, PackedB):
        k, n = value.shape
        for rows in (1, 40):
            a = cases.bytes8(2, (rows, k), np.uint8)
            yield qkernels.int8_gemm(a, value, a_zero_point=3)
            yield qkernels.int8_gemm(a, value, 0.5, a_zero_point=a[:, 0] if k else 1)
            yield qkernels.int8_gemm(a, value, 0.5, a_zero_point=9, out_dtype="int8", out_scale=0.1)
            if k < 2**14:
                yield qkernels.int8_gemm(a, value, 0.5, out_dtype="uint8", out_scale=0.1, requant="fixed")
        yield value.unpack()
        yield value.zero_point
        yield pickle.dumps(value)
    else:
        yield from to_arrays(value).values()


def overwritten(path, model, make):
    """The bytes of the memory that each entry has in the file become those that `make` gives; the map stays."""
    with open(path, "r+b") as file:
        for name in model:
            for suffix, tensor in model.parts(name).items():
                file.seek(tensor.start)
                file.write(make(name, suffix, tensor.nbytes))


def shapes(made):
    return [x.shape if isinstance(x, np.ndarray) else type(x) for x in made]


def main(folder):
    path, other = os.path.join(folder, "model"), os.path.join(folder, "other")
    model = every_kind() | {"wide k": pack_b(cases.bytes8(17, (40000, 5), np.uint8))}
    save(path, model)
    loaded = load(path)
    values = values_of(loaded)
    before = {name: list(results(value)) for name, value in values.items()}

    # Other values of the same shapes: the results are theirs.
    save(other, {name: another(value) for name, value in model.items()})
    theirs, raw = load(other), np.fromfile(other, np.uint8)
    overwritten(path, loaded, lambda name, suffix, nbytes: raw[theirs.parts(name)[suffix].start :][:nbytes].tobytes())
    their_values = values_of(theirs)
    for name in ("int8", "signs", "ternary", "fast", "fine", "b", "wide k", "experts 1"):
        for got, want in zip(results(values[name]), results(their_values[name]), strict=True):
            same = got == want if isinstance(got, bytes) else np.array_equal(got, want)
            assert same or got is want, name

    # Packed forms of other shapes, and bytes that mean nothing: results have the shapes that they had.
    larger = {"w": packed(weight(1, 192, 192, "int8", 32, False)).packed.memory.tobytes(),
              "b": pack_b(cases.bytes8(2, (192, 192), np.uint8)).memory.tobytes()}  # fmt: skip
    makers = [lambda name, _, nbytes: larger["b" if "b" in name.split() else "w"][:nbytes].ljust(nbytes, b"\1")]
    makers += [lambda _, __, nbytes, byte=byte: bytes([byte]) * nbytes for byte in (0, 0x7F, 0x80, 0xFF)]
    makers += [lambda _, __, nbytes, seed=seed: cases.bytes8(seed, (nbytes,), np.uint8).tobytes() for seed in range(5)]
    for make in makers:
        overwritten(path, loaded, make)
        for name, value in values.items():
            for got, want in zip(shapes(results(value)), shapes(before[name]), strict=True):
                assert got in (want, type(None)), (name, got, want)
        loaded.rows("wide", np.arange(40))
    try:
        list(load(path).values())
    except ValueError as error:
        assert "damaged" in str(error)
    [np.ones(1000) for _ in range(1000)]  # the heap is sound
    print("survived")


def values_of(model):
    """By name; stacks as their weights."""
    values = {}
    for name, value in model.items():
        if isinstance(value, QuantizedWeightStack):
            values |= {f"{name} {i}": weight for i, weight in enumerate(value)}
        else:
            values[name] = value
    return values


def another(value):
    """A value of the same kind and shape whose memory is another."""
    if isinstance(value, QuantizedWeight):
        codes, scales, zero_points = value._unpacked()
        stream = {"k": value.shape[1], "window": value.window} if value.format.startswith("trellis") else {}
        if not stream:
            codes = codes[:, ::-1]
        return QuantizedWeight(value.format, codes[::-1], scales[::-1], zero_points, value.group_size, seed=value.seed,
                               levels=value.levels if value.format == "codebook4" else None, **stream,
                               input_scales=value.input_scales)
    if isinstance(value, QuantizedWeightStack):
        return QuantizedWeightStack([another(weight) for weight in value])
    if isinstance(value, PackedB):
        return pack_b(value.unpack()[::-1, ::-1], b_zero_point=value.zero_point[::-1])
    return value


if __name__ == "__main__":
    main(sys.argv[1])
