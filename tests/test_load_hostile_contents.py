"""Hostile files whose tensors are in order: what qkernels says of them, what they hold, and indices."""

import json
import struct

import numpy as np
import pytest
from cases import raises
from file_cases import every_kind, header_of, own_of, resealed, sealed
from test_load_hostile import ERRORS, assert_refused, good, little_memory  # noqa: F401

from qkernels import load, save, shards

pytestmark = pytest.mark.any_isa


def with_bytes(header, data, name, at, new):
    """The file with other bytes in a tensor, and their checksums."""
    begin = header[name]["data_offsets"][0] + at
    return sealed(header, data[:begin] + new + data[begin + len(new) :])


def test_what_qkernels_says(good, tmp_path, little_memory):  # noqa: F811
    header, data = good
    own = own_of(header)
    versions = [None, 0, 2, 3, -1, 1.0, "1", True, [1], {"a": 1}, 10**4000, 1e308]
    entries = [None, [], "a", 3, {}, {"w": own["entries"]["w"]}, own["entries"] | {"more": {"kind": "array"}},
               own["entries"] | {"w.levels": {"kind": "array"}}, own["entries"] | {"seen.sum": {"kind": "array"}},
               {k: v for k, v in own["entries"].items() if k != "a"}, [*own["entries"].items()],
               own["entries"] | {"stack.1": own["entries"]["w"]},
               own["entries"] | {"stack.0.levels": {"kind": "array"}},
               {k: v for k, v in own["entries"].items() if k != "stack"}]  # fmt: skip
    for version in versions:
        assert_refused(tmp_path, sealed(header, data, own | {"version": version}), ("version", str(version)[:9]))
    (tmp_path / "later").write_bytes(sealed(header, data, own | {"version": 2, "written_by": "9.1"}))
    text = raises(ValueError, None, load, tmp_path / "later")
    assert "version: got 2, takes 1; it was written by qkernels 9.1" in text
    for value in entries:
        assert_refused(tmp_path, sealed(header, data, own | {"entries": value}), ("entries", value))
    for value in (None, [], "a", {}, {name: "" for name in own["checksums"]}, own["checksums"] | {"w": None},
                  own["checksums"] | {"more": "00000000"}, own["checksums"] | {"w": own["checksums"]["w"] * 2},
                  own["checksums"] | {"w": 12345678}):  # fmt: skip
        assert_refused(tmp_path, sealed(header, data, own | {"checksums": value}, checksums=False), "checksums")
    wrong = own["checksums"] | {"w": "0" * len(own["checksums"]["w"])}
    assert_refused(tmp_path, sealed(header, data, own | {"checksums": wrong}, checksums=False), "wrong", at_once=False)
    for name in own:
        if name != "written_by":
            assert_refused(tmp_path, sealed(header, data, {k: v for k, v in own.items() if k != name}), name)
    for text in ("", "{", "null", "[]", "3", '"a"', "[" * 10**5, "9" * 4301, "\0", json.dumps(own)[:-1]):
        assert_refused(tmp_path, sealed(header, data, text), text[:9])
    foreign = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for metadata in ({}, {"qkernels": "{}"}, {"qkernels_checksum": "00000000"}, {"format": "pt"}):
        text = json.dumps(foreign | {"__metadata__": metadata}).encode()
        assert_refused(tmp_path, resealed(text) + data, metadata)
    for seal in ("", "0" * 7, "0" * 9, "00000000", "é" * 4, '"', "\\u0000", "FFFFFFFF"):
        raw = sealed(header, data)
        at = raw.index(b'"qkernels_checksum":"') + 21
        assert_refused(tmp_path, raw[:at] + seal.encode()[:8].ljust(8) + raw[at + 8 :], seal)


def test_packed_headers(good, tmp_path, little_memory):  # noqa: F811
    """Every byte of them, changed in several ways: nothing is used that does not follow from the shape."""
    header, data = good
    for name, size in (("w", 88), ("row", 88), ("fine", 88), ("stack.2", 88), ("b", 72), ("none", 72)):
        begin = header[name]["data_offsets"][0]
        for at in range(size):
            for change in (0x01, 0xFF):
                raw = with_bytes(header, data, name, at, bytes([data[begin + at] ^ change]))
                assert_refused(tmp_path, raw, (name, at, change), at_once=False)
        for at in range(0, size, 8):
            for word in (0, 2**32, 2**63, 2**64 - 64):
                new = struct.pack("<Q", word)
                if data[begin + at : begin + at + 8] != new:
                    assert_refused(tmp_path, with_bytes(header, data, name, at, new), (name, at, word), at_once=False)
    for zero_point in (-(2**31), -257, -129, 128, 257, 2**31 - 1):
        raw = with_bytes(header, data, "b", 128, struct.pack("<i", zero_point))
        assert_refused(tmp_path, raw, zero_point, at_once=False)


def test_tensors_of_another_dtype_or_shape(good, tmp_path, little_memory):  # noqa: F811
    header, data = good
    sums = [f"seen.{entry}" for entry in ("version", "count", "products", "sum", "max_abs")]
    weights = ["w", "row", "row.levels", "stack.0", "stack.2", "scaled.1.levels", "scaled.1.input_scales"]
    for name in (*weights, "b", *sums):
        tensor = header[name]
        size = tensor["data_offsets"][1] - tensor["data_offsets"][0]
        for dtype, bits in (("U8", 8), ("I8", 8), ("BOOL", 8), ("I16", 16), ("F16", 16), ("BF16", 16), ("C64", 64),
                            ("F32", 32), ("F64", 64), ("F8_E4M3", 8), ("F4", 4), ("U64", 64)):  # fmt: skip
            count = 8 * size // bits
            for shape in ([count], [1, count], [count, 1], [], [2, count // 2], tensor["shape"]):
                changed = {"dtype": dtype, "shape": shape}
                if changed.items() <= tensor.items() or np.prod(shape, dtype=int) * bits != 8 * size:
                    continue
                raw = sealed(header | {name: tensor | changed}, data)
                if name == "seen.count" and dtype == "U64" or name == "seen.version" and dtype in ("U64", "I64"):
                    continue  # a number of 64 bits is one
                if name == "seen.max_abs" and dtype == "F32":
                    continue
                assert_refused(tmp_path, raw, (name, changed), at_once=False)


def test_missing_and_additional_tensors(tmp_path, little_memory):  # noqa: F811
    """An entry without one of its tensors, or with one that is not its own."""
    model = every_kind()
    save(tmp_path / "model", model)
    raw = (tmp_path / "model").read_bytes()
    header, start = header_of(raw)
    data = raw[start:]
    own = own_of(header)
    renamed = [("by row.levels", "nf4.levels"), ("by row.levels", "int8.levels"), ("by row.levels", "by row.level"),
               ("int4.scaled.input_scales", "nf4.levels"), ("seen.sum", "seen.sums"), ("seen.version", "b.version"),
               ("int4.scaled.input_scales", "b.input_scales"), ("by row", "by column"), ("b", "c"),
               ("experts.0", "experts.3"), ("experts.1", "experts.01"), ("experts.2", "experts.-1"),
               ("experts.1", "x.1"),
               ("some scaled.0.levels", "experts.0.levels"), ("some scaled.1.input_scales", "experts.1.levels"),
               ("some scaled.2.levels", "some scaled.levels"), ("some scaled.1", "some scaled"),
               ("seen.sum_abs", "w.sum_abs"), ("int4.scaled.input_scales", "int2.rotated.input_scales")]  # fmt: skip
    for old, new in renamed:
        changed = {(new if name == old else name): entry for name, entry in header.items()}
        assert len(changed) == len(header)
        assert_refused(tmp_path, sealed(changed, data), (old, new), at_once=False)
    for name, value in (("int4.scaled.input_scales", [0, np.nan, -1, np.inf]),
                        ("some scaled.1.input_scales", [0, np.nan, -1, np.inf]),
                        ("seen.products", [np.nan, -1, np.inf])):
        for bad in value:
            new = np.array([bad], np.float32 if "scales" in name else np.float64).tobytes()
            assert_refused(tmp_path, with_bytes(header, data, name, 0, new), (name, bad), at_once=False)
    assert len(own["entries"]) == len(model)


def test_indices(tmp_path):
    save(tmp_path / "a.safetensors", {"a": np.ones(3)})
    path = tmp_path / shards.INDEX
    names = ["../a.safetensors", "/etc/passwd", "../../etc/passwd", "..", ".", "", "a/../a.safetensors", "a\0", "\\a",
             3, None, ["a.safetensors"], {"a": 1}, True, "..\\a.safetensors", "./a.safetensors"]  # fmt: skip
    texts = [json.dumps({"weight_map": {"a": name}}) for name in names]
    texts += ["", "{", "[]", "null", "3", '"weight_map"', "{}", "[" * 10**5, "9" * 4301]
    texts += [f'{{"weight_map":{value}}}' for value in ("null", "[]", "{}", '"a.safetensors"', '{"a":NaN}')]
    for text in texts:
        path.write_text(text)
        assert str(path) in raises(ValueError, None, load, path)
    path.write_bytes(b"\xff\xfe")
    assert str(path) in raises(ValueError, None, load, path)
    for name in ("x" * 300, "gone", "\ud800"):
        path.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ERRORS):
            load(path)
    path.write_text(json.dumps({"weight_map": {"a": "a.safetensors"}, "more": [1]}))
    assert load(path)["a"].shape == (3,)
