"""What is saved comes back bit for bit, and is used where it lies in the file."""

import mmap

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from file_cases import array, assert_same_value, every_kind, stack, statistics, to_arrays, with_inputs
from weight_cases import KINDS, MODES, packed, weight

import qkernels
from qkernels import QuantizedWeight, entries, load, model_file, pack_b, safetensors_format, save
from qkernels.calibration import InputStatistics

DTYPES = [dtype for name, dtype in safetensors_format.NUMPY.items()]
ML_DTYPES = list(safetensors_format.ML_DTYPES.values())


def on_map(array):
    """Whether an array lies in a mapped file, read-only."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    return isinstance(base, mmap.mmap) and not array.flags.writeable


def saved(folder, value, **options):
    save(folder / "one.safetensors", {"w": value})
    return load(folder / "one.safetensors", **options)["w"]


def test_every_kind(isa, tmp_path):
    model, path = every_kind(), tmp_path / "model.safetensors"
    assert save(path, model, metadata={"made": "für Tests", "": "\0"}) is None
    for verify in (True, False):
        again = load(path, verify=verify)
        assert list(again) == list(model) and len(again) == len(model) and again.nbytes == path.stat().st_size
        assert again.metadata == {"made": "für Tests", "": "\0"}
        for name, value in model.items():
            assert again[name] is again[name]
            assert_same_value(again[name], value, name)
            if isinstance(value, QuantizedWeight):
                assert on_map(again[name].packed.memory), name
                assert again[name].packed.memory.ctypes.data % 64 == 0
            elif isinstance(value, np.ndarray):
                assert on_map(again[name]), name
            elif isinstance(value, qkernels.PackedB):
                assert on_map(again[name].memory), name


def test_every_weight(isa, tmp_path):
    """All formats, groups and scales, in one file; their products are those of the weights that were saved."""
    x = cases.floats(2, (4, 100))
    model = {}
    for seed, kind in enumerate(KINDS):
        model[" ".join(map(str, kind))] = packed(weight(seed, 18, 100, *kind))
    save(tmp_path / "all", model)
    again = load(tmp_path / "all")
    for i, (name, qw) in enumerate(model.items()):
        got = again[name]
        assert_same_value(got, qw, name)
        assert got.packed.memory.tobytes() == qw.packed.memory.tobytes() and on_map(got.packed.memory), name
        assert (got.nbytes, got.packed.layout, repr(got)) == (qw.nbytes, qw.packed.layout, repr(qw))
        assert_same(qkernels.linear(x, got, **MODES[i % 3]), qkernels.linear(x, qw, **MODES[i % 3]), name)
        with pytest.raises(ValueError, match="read-only"):
            got.packed.memory[:1] = 0


@pytest.mark.parametrize("n, k", [(0, 0), (0, 5), (5, 0), (1, 1), (3, 31), (17, 257), (33, 512), (16, 300)])
def test_sizes(isa, tmp_path, n, k):
    kinds = [("int4", 32, False), ("int8", None, True), ("binary", 64, True), ("codebook4 by row", 32, True),
             ("trellis3", None, True), ("trellis4 16", 32, True), ("int2", 2**40, False)]  # fmt: skip
    model = {str(kind): packed(weight(1, n, k, *kind)) for kind in kinds}
    model["b"] = pack_b(cases.bytes8(2, (n, k), np.int8), b_zero_point=cases.ints(3, (k,), -128, 127))
    save(tmp_path / "model", model)
    for name, value in load(tmp_path / "model").items():
        assert_same_value(value, model[name], name)
    if n:
        x = cases.floats(4, (3, k))
        assert_same(qkernels.linear(x, load(tmp_path / "model")["('int4', 32, False)"]),
                    qkernels.linear(x, model["('int4', 32, False)"]))


def test_rotated_and_scaled_weights(isa, tmp_path):
    x = cases.floats(2, (3, 96))
    for seed in (0, 1, 2**53 + 1, 2**63, 2**64 - 1):
        qw = with_inputs(weight(1, 17, 96, "int4", 32, False), seed=seed)
        again = saved(tmp_path, qw)
        assert again.seed == seed and type(again.seed) is int
        assert_same(qkernels.linear(x, again), qkernels.linear(x, qw))
    qw = with_inputs(weight(1, 17, 96, "int4", 32), input_scales=cases.scales(3, (96,), 1.0))
    again = saved(tmp_path, qw)
    assert_same(again.input_scales, qw.input_scales)
    assert_same(qkernels.linear(x, again), qkernels.linear(x, qw))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_packed_b(isa, tmp_path, dtype):
    low, high = cases.LIMITS[dtype]
    a = cases.bytes8(1, (3, 29), np.uint8)
    for zero_point in (0, low, high, cases.ints(2, (19,), low, high)):
        b = pack_b(cases.bytes8(3, (29, 19), dtype), b_zero_point=zero_point)
        again = saved(tmp_path, b)
        assert (again.dtype, again.shape, again.nbytes) == (b.dtype, b.shape, b.nbytes) and on_map(again.memory)
        assert_same(qkernels.int8_gemm(a, again, a_zero_point=7), qkernels.int8_gemm(a, b, a_zero_point=7))
        assert_same(qkernels.int8_gemm(a, again, 0.5), qkernels.int8_gemm(a, b, 0.5))
    for zero_point in (0, high):
        again = saved(tmp_path, pack_b(np.zeros((3, 0), dtype), b_zero_point=zero_point))
        assert_same(qkernels.int8_gemm(a[:, :3], again), np.zeros((3, 0), np.int32))


@pytest.mark.any_isa
def test_statistics(tmp_path):
    for seen in (statistics(), statistics(1, 1), InputStatistics(4), InputStatistics(0), statistics(6, 2000)):
        again = saved(tmp_path, seen)
        assert_same_value(again, seen)
        assert again.merge(seen).count == 2 * seen.count  # in memory of its own


@pytest.mark.any_isa
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays(tmp_path, dtype):
    check_arrays(tmp_path, np.dtype(dtype))


@pytest.mark.any_isa
@pytest.mark.parametrize("name", ML_DTYPES)
def test_arrays_of_ml_dtypes(tmp_path, name):
    check_arrays(tmp_path, np.dtype(getattr(pytest.importorskip("ml_dtypes"), name)))


def check_arrays(folder, dtype):
    shapes = [(), (1,), (0,), (3, 0, 2), (7,), (3, 5), (2, 1, 3, 1), (1,) * 32]
    model = {str(shape): array(seed, shape, dtype) for seed, shape in enumerate(shapes)}
    square = array(9, (6, 5), dtype)
    model |= {"transposed": square.T, "reversed": square[::-1, ::-1], "sliced": square[1::2, ::3],
              "spread": np.broadcast_to(square[0], (4, 5)), "Fortran": np.asfortranarray(square)}  # fmt: skip
    model["matrix"] = square.view(np.matrix)
    save(folder / "arrays", model)
    again = load(folder / "arrays")
    for name, want in model.items():
        got = again[name]
        assert (type(got), got.dtype, got.shape) == (np.ndarray, dtype, want.shape), name
        assert got.tobytes() == want.tobytes() and got.flags.c_contiguous and got.flags.aligned, name
        assert on_map(got), name
        with pytest.raises(ValueError, match="read-only"):
            got[...] = got


@pytest.mark.any_isa
def test_the_same_model_gives_the_same_bytes(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    save(first, every_kind(), metadata={"a": "b"})
    save(second, load(first), metadata=load(first).metadata)
    assert first.read_bytes() == second.read_bytes()
    save(first, load(first), metadata={"a": "b"})  # over the file that it comes from
    assert first.read_bytes() == second.read_bytes()
    save(first, load(first))
    assert load(first).metadata == {}


@pytest.mark.any_isa
def test_alignment(tmp_path):
    """Packed forms at multiples of 64, arrays at multiples of their values' size, whatever the names' order is."""
    model = {"a": array(1, (3,), np.uint8), "b": array(2, (3,), np.float64), "c": array(3, (1,), np.float16)}
    model |= every_kind()
    save(tmp_path / "model", model)
    with open(tmp_path / "model", "rb") as file:
        header = safetensors_format.read_header(file)
    for name, tensor in header.tensors.items():
        packed = name in model and isinstance(model[name], (QuantizedWeight, qkernels.PackedB))
        assert tensor.start % (64 if packed else safetensors_format.BITS[tensor.dtype] // 8) == 0, name
    assert len(header.raw) % 64 == 0


@pytest.mark.any_isa
def test_what_cannot_be_saved(tmp_path):
    path, fine = tmp_path / "model", np.zeros(3)
    for bad in (None, [("a", fine)], fine, "model", {1: fine}, {None: fine}, {b"a": fine}):
        raises(TypeError, "model", save, path, bad)
    for bad in (None, "text", [1.0], 3, object(), np.array(["a"]), np.array([None]), fine.astype(">f4"),
                fine.astype(np.longdouble), fine.astype(np.complex128), np.zeros(2, "M8[s]"), np.zeros(2, "i4,i4"),
                np.zeros(2, "V3"), b"raw"):  # fmt: skip
        assert "model: layer" in raises(TypeError, "model", save, path, {"fine": fine, "layer": bad})
    raises(ValueError, "__metadata__", save, path, {"__metadata__": fine})
    raises(ValueError, None, save, path, {"half \ud83d": fine})
    raises(ValueError, None, save, path, {"a": fine}, metadata={"a": "\udc80"})
    raises(ValueError, "shape", save, path, {"a": pack_b(np.zeros((2**24 + 1, 0), np.int8))})
    for bad in ([], "text", {"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}):
        raises(TypeError, "metadata", save, path, {"a": fine}, metadata=bad)
    for bad in (model_file.KEY, model_file.SEAL):
        raises(ValueError, "metadata", save, path, {"a": fine}, metadata={bad: "x"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.any_isa
def test_names_of_parts(tmp_path):
    """No entry has the name of a tensor that another has or may have, whatever the order, or what kinds they are."""
    path, fine, plain = tmp_path / "model", np.zeros(3), packed(weight(1, 5, 64, "int8"))
    by_row, seen = packed(weight(1, 17, 96, "codebook4 by row", 32)), statistics()
    experts = stack(1, 2, 5, 64, "int8")
    for name in ("w", "", "w.levels", "ünïcode \n\0"):
        pairs = [(value, suffix, other) for suffix in (".levels", ".input_scales") for other in (fine, plain)
                 for value in (plain, by_row)]
        pairs += [(seen, suffix, fine) for suffix in (".version", ".count", ".sum", ".max_abs")]
        pairs += [(experts, suffix, other) for suffix in (".0", ".1.levels", ".1.input_scales")
                  for other in (fine, plain)]
        for value, suffix, other in pairs:
            for model in ({name: value, name + suffix: other}, {name + suffix: other, name: value}):
                text = raises(ValueError, "model", save, path, model)
                assert all(entry in text for entry in model)
        near = {name: plain, name + ".level": fine, name + ".levels.": fine, name + "levels": fine, "x" + name: seen}
        save(path, near | {name + ".zero_points": fine})  # an entry of states, but no tensor of files
        model = load(path)
        assert [model[entry] is not None for entry in model] == [True] * 6
        path.unlink()
    for model in ({"w": fine, "w.levels": plain}, {"w": experts, "w.2": plain, "w.00": fine}):
        save(path, model)
        assert len([*load(path).values()]) == len(model)


@pytest.mark.any_isa
def test_odd_names(tmp_path):
    names = ["", " ", ".", "..", "a/../b", "a\0b", "\n", "\u202eabc", "😀", "é", "e\u0301", "n" * 5000, "__weird__",
             "\x1b[31m"]
    model = {name: np.full(3, i) for i, name in enumerate(names)}
    model |= {name + "w": packed(weight(1, 5, 64)) for name in names}
    save(tmp_path / "model", model)
    loaded = load(tmp_path / "model")
    assert set(loaded) == set(model) and all(loaded[name][0] == i for i, name in enumerate(names))
    assert all(loaded[name + "w"].shape == (5, 64) for name in names)


@pytest.mark.any_isa
def test_an_empty_model(tmp_path):
    save(tmp_path / "model", {})
    model = load(tmp_path / "model")
    assert len(model) == 0 and list(model) == [] and "w" not in model
    assert "0 entries" in repr(model)


@pytest.mark.any_isa
def test_descriptions(tmp_path):
    save(tmp_path / "model", every_kind())
    model = load(tmp_path / "model")
    assert model.descriptions["bias"] == entries.ARRAY
    assert model.descriptions["seen"] == {"kind": "statistics", "rows": 9, "k": 12}
    got = model.descriptions["int8"]
    assert (got["kind"], got["format"], got["shape"], got["group_size"]) == ("weight", "int8", [5, 40], 32)
    assert (got["scale_dtype"], got["zero_points"], got["isa"]) == ("float32", True, qkernels.cpu_info()["selected"])
    assert got["layout"] == entries.layout_id(model["int8"].packed.layout)
    assert to_arrays(model["int8"])["w"].shape == (5, 40)
