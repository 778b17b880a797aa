"""The ways to ask a model for its entries, and what is verified when."""

import os
import stat
import threading

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from file_cases import assert_same_value, every_kind, stack, statistics
from weight_cases import packed, weight

from qkernels import _files, load, model_file, save, shards

pytestmark = pytest.mark.any_isa


def test_rows(tmp_path):
    table = cases.floats(1, (5000, 24))
    save(tmp_path / "model", {"w": packed(weight(1, 4, 32)), "table": table, "flat": table[0], "one": np.array(3.0),
                              "thin": np.zeros((5, 0), np.float32), "none": np.zeros((0, 3), np.int8)})  # fmt: skip
    for verify in (True, False):
        model = load(tmp_path / "model", verify=verify)
        for index in (0, -1, 4999, np.arange(5000), [[1, 2], [4999, -5000]], np.zeros((3, 0), int), np.uint64(7),
                      np.array([3, 3], np.uint8), np.int8([-1, 100])):  # fmt: skip
            assert_same(np.asarray(model.rows("table", index)), table[np.asarray(index)])
        assert_same(model.rows("flat", [1, -1]), table[0][[1, -1]])
        assert model.rows("thin", [4, -5]).shape == (2, 0)
        assert model.rows("none", np.zeros(0, int)).shape == (0, 3)
        for index in (5000, -5001, [0, 5000], np.uint64(2**63), np.uint64([2**64 - 1])):
            with pytest.raises(IndexError):
                model.rows("table", index)
        for name in ("none", "one"):
            with pytest.raises(IndexError):
                model.rows(name, [0])
        for index in (1.0, None, "a", [True] * 5000, [0.5], slice(3)):
            raises(TypeError, "index", model.rows, "table", index)
        raises(TypeError, "name", model.rows, "w", [0])
        with pytest.raises(KeyError):
            model.rows("w2", [0])


def damaged(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_what_is_verified(tmp_path):
    """Each part that is used, and no other; once."""
    path, table = tmp_path / "model", cases.floats(1, (5000, 24))  # 7.3 pieces
    save(path, {"table": table, "w": packed(weight(1, 4, 32))})
    start = model_file.MappedFile(path).header.tensors["table"].start
    damaged(path, start + 3 * 2**16 + 5)
    model = load(path)
    assert model["w"].shape == (4, 32)
    assert_same(model.rows("table", [0, 1, -1]), table[[0, 1, -1]])
    bad = 3 * 2**16 // 96
    for index in ([bad + 1], [0, bad - 5000, 7], [bad]):  # the last one lies in two pieces
        assert str(path) in raises(ValueError, None, model.rows, "table", index)
    assert_same(model.rows("table", [bad - 1]), table[[bad - 1]])
    for _ in range(2):
        assert str(path) in raises(ValueError, None, model.__getitem__, "table")
    with pytest.raises(ValueError, match="table"):
        list(model.values())
    assert np.count_nonzero(load(path, verify=False)["table"] != table) == 1
    assert "table" in model and "tables" not in model and list(model) == ["table", "w"]
    with pytest.raises(KeyError):
        model["tables"]


def test_a_stack_is_made_weight_by_weight(tmp_path):
    """Where it lies in the file, one after the other; damage to one is no damage to the others."""
    path, want = tmp_path / "model", stack(1, 4, 40, 300, "int4", 32)
    save(path, {"experts": want, "b": np.ones(3)})
    places = [load(path).parts("experts")[f".{i}"] for i in range(4)]
    assert all(place.start % 64 == 0 for place in places)
    assert all(b.start == a.start + a.nbytes for a, b in zip(places, places[1:], strict=False))
    damaged(path, places[2].start + 4000)
    model = load(path)
    got = model["experts"]
    assert model["experts"] is got and got[1] is got[1] and model.shape("experts") == got.shape == (4, 40, 300)
    for i in (0, 3, 1):
        assert_same_value(got[i], want[i])
        assert np.shares_memory(got[i].packed.memory, model._files["experts"].array(f"experts.{i}"))
    for ask in (lambda: got[2], got.dequantize, lambda: got[1:3], lambda: list(got), model.verify_all):
        assert "experts.2: is damaged at bytes 0 to" in raises(ValueError, None, ask)
    assert got.nbytes == want.nbytes and repr(got) == repr(want)
    assert load(path, verify=False)["experts"][2].shape == (40, 300)
    raises(TypeError, "name", model.rows, "experts", [0])


def test_threads_ask_at_the_same_time(tmp_path):
    want = every_kind()
    save(tmp_path / "model", want)
    for _ in range(5):
        model, seen, gate = load(tmp_path / "model"), [], threading.Barrier(8)

        def ask(model=model, seen=seen, gate=gate):
            gate.wait()
            seen.append({name: model[name] for name in model} | {"rows": model.rows("wide", np.arange(40))})

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 8
        for got in seen:
            assert all(got[name] is seen[0][name] for name in want)
            assert_same(got["rows"], want["wide"])
    for name, value in want.items():
        assert_same_value(model[name], value, name)


def parts_of(folder, model, count=3):
    """A model in shards with their index."""
    names, weight_map = list(model), {}
    for i in range(count):
        part = {name: model[name] for name in names[i::count]}
        file = f"model-{i}.safetensors"
        save(folder / file, part, metadata={str(i): file})
        weight_map |= {tensor: file for tensor in model_file.MappedFile(folder / file).header.tensors}
    _files.write_json(folder / shards.INDEX, shards.index_of(weight_map, 1))
    return weight_map


def test_shards(tmp_path):
    want = every_kind()
    weight_map = parts_of(tmp_path, want)
    for path in (tmp_path, str(tmp_path), tmp_path / shards.INDEX):
        model = load(path)
        assert set(model) == set(want) and model.metadata == {str(i): f"model-{i}.safetensors" for i in range(3)}
        assert model.nbytes == sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
        for name, value in want.items():
            assert_same_value(model[name], value, name)
        assert_same(model.rows("wide", [3]), want["wide"][[3]])
    index = tmp_path / shards.INDEX
    name = next(iter(weight_map))
    for changed in (weight_map | {name: "model-1.safetensors"}, weight_map | {"other": "model-0.safetensors"}):
        _files.write_json(index, shards.index_of(changed, 1))
        assert str(index) in raises(ValueError, None, load, index)
    (tmp_path / "model-3.safetensors").write_bytes((tmp_path / "model-0.safetensors").read_bytes())
    _files.write_json(index, shards.index_of(weight_map | {name: "model-3.safetensors"}, 1))
    with pytest.warns(UserWarning, match="tensors that the index does not list"):
        assert_same_value(load(index)[name], want[name], name)
    _files.write_json(index, shards.index_of(weight_map | {name: "gone.safetensors"}, 1))
    with pytest.raises(FileNotFoundError, match="gone"):
        load(index)
    index.unlink()
    assert "has 4 models" in raises(ValueError, None, load, tmp_path)


def test_the_index_is_the_authority(tmp_path):
    """Entries that it does not list are left out, and of two of a name the one that it lists is used."""
    w = packed(weight(1, 17, 96, "codebook4 by row", 32))
    save(tmp_path / "a.safetensors", {"w": w, "x": np.ones(3), "y": np.ones(2)})
    save(tmp_path / "b.safetensors", {"x": np.zeros(3), "w": packed(weight(2, 5, 64)), "seen": statistics()})

    def loaded(**weight_map):
        _files.write_json(tmp_path / shards.INDEX, shards.index_of({
            name: f"{file}.safetensors" for name, file in weight_map.items()}, 1))
        return load(tmp_path)

    with pytest.warns(UserWarning, match=f"^{tmp_path}: 9 tensors that the index does not list where they are"):
        model = loaded(**{"w": "a", "w.levels": "a", "x": "b"})
    assert set(model) == {"w", "x"} and model["w"].format == "codebook4" and not model["x"].any()
    with pytest.warns(UserWarning, match="10 tensors"):
        model = loaded(w="b", x="a")
    assert set(model) == {"w", "x"} and model["w"].format != "codebook4" and model["x"].all()
    model.verify_all()
    for parts in ({"w": "a"}, {"w.levels": "a"}, {"seen.sum": "b"}):
        text = raises(ValueError, None, loaded, x="a", **parts)
        assert "the index lists " + next(iter(parts)) + ", not " in text and ".safetensors: " in text


def test_an_index_that_contradicts_itself(tmp_path):
    save(tmp_path / "a", {"x": np.ones(3)})
    for other in ("a", "b"):
        (tmp_path / shards.INDEX).write_text('{"weight_map": {"x": "a", "x": "%s"}}' % other)
        if other == "a":
            assert load(tmp_path)["x"].all()
        else:
            assert "an entry is there twice" in raises(ValueError, None, load, tmp_path)


def test_paths(tmp_path):
    save(tmp_path / "model.safetensors", {"a": np.ones(3)})
    for path in (tmp_path, os.fspath(tmp_path), tmp_path / "model.safetensors"):
        assert_same(load(path)["a"], np.ones(3))
    for missing in ("no", "no/model.safetensors", "no.safetensors.index.json", "model.safetensors/x", "x" * 300):
        with pytest.raises(OSError, match=missing):
            load(tmp_path / missing)
    (tmp_path / "empty").mkdir()
    assert "empty" in raises(ValueError, None, load, tmp_path / "empty")
    for bad in (None, 3, b"model", 1.5, ["model"]):
        with pytest.raises(TypeError):
            load(bad)
    with pytest.raises(ValueError, match="null"):
        load("model\0")
    os.chmod(tmp_path / "model.safetensors", stat.S_IWUSR)
    if os.geteuid():
        with pytest.raises(PermissionError, match="model"):
            load(tmp_path)
