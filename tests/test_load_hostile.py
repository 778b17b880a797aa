"""Files that were made to do harm: each gives a clear error that names the file, before memory is taken for it."""

import json
import resource
import struct

import cases
import numpy as np
import pytest
from file_cases import header_of, own_of, resealed, sealed, some_scaled, stack, statistics
from weight_cases import packed, weight

from qkernels import QuantizedWeightStack, load, pack_b, save

pytestmark = pytest.mark.any_isa
ERRORS = (ImportError, OSError, TypeError, ValueError)  # the first of dtypes of ml_dtypes, where that is missing


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The header and data of a good file."""
    path = tmp_path_factory.mktemp("hostile") / "good"
    save(path, {
        "w": packed(weight(1, 18, 100, "int4", 32, False)), "row": packed(weight(2, 16, 64, "codebook4 by row")),
        "fine": packed(weight(3, 4, 70, "trellis2 12")), "b": pack_b(cases.bytes8(4, (9, 20), np.int8)),
        "stack": stack(6, 3, 4, 64, "int4", 32), "scaled": some_scaled(),
        "none": pack_b(np.zeros((4, 0), np.int8), b_zero_point=3), "seen": statistics(3),
        "a": cases.floats(5, (6, 4)), "c": np.zeros((2, 0)),
    })  # fmt: skip
    raw = path.read_bytes()
    header, start = header_of(raw)
    return header, raw[start:]


@pytest.fixture
def little_memory():
    """What a file claims cannot be taken: 2 GiB more than there is in use is the end."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def assert_refused(folder, raw, what, at_once=True):
    """at_once: by load itself, not when an entry is asked for."""
    path = folder / "hostile.safetensors"
    path.write_bytes(raw)
    try:
        model = load(path)
        assert not at_once, what
        for value in model.values():
            if isinstance(value, QuantizedWeightStack):
                list(value)
    except ERRORS as error:
        assert str(path) in str(error) and len(str(error)) < 1200, what
        return
    pytest.fail(f"{what}: nothing was noticed")


def test_the_good_file_is_good(good, tmp_path):
    """Sealed by the tests, too: what follows is refused for what it says."""
    header, data = good
    (tmp_path / "good").write_bytes(sealed(header, data))
    assert len(list(load(tmp_path / "good").values())) == 10


def test_lengths(good, tmp_path, little_memory):
    header, data = good
    raw = sealed(header, data)
    for length in (0, 1, 7, len(raw) - 8, len(raw) - 7, len(raw), 10**8, 10**8 + 1, 2**31, 2**32, 2**63 - 1, 2**63,
                   2**64 - 8, 2**64 - 1):  # fmt: skip
        assert_refused(tmp_path, struct.pack("<Q", length) + raw[8:], length)
    for size in [*range(10), 100, len(raw) - len(data) - 1, len(raw) - len(data), len(raw) - 1]:
        assert_refused(tmp_path, raw[:size], f"cut to {size}")
    for more in (b"\0", b" " * 64, raw):
        assert_refused(tmp_path, raw + more, "bytes at the end")


def test_text_that_is_no_header(tmp_path, little_memory):
    deep = [pair * depth for pair in ("[", '{"a":') for depth in (100, 900, 1000, 100_000)]
    closed = ["[" * depth + "]" * depth for depth in (100, 700, 900, 960, 980, 990)]
    tensor = '{"dtype":"U8","shape":[],"data_offsets":[0,1]}'
    for text in ["", " ", "{", "}", "[]", "null", "3", '"a"', "{} {}", "{'a':1}", '{"a":NaN}', '{"a":-Infinity}',
                 "{" * 10, '{"a":%s,"a":%s}' % (tensor, tensor), '{"a":' + "9" * 4301 + "}", '{"a":1e999}',
                 '{"\\ud800":%s}' % tensor, '{"__metadata__":{"a":"\\udfff"}}', '{"__metadata__":{"a":1}}', "\ufeff{}",
                 '{"__metadata__":[]}', '{"__metadata__":null}', '{"__metadata__":"qkernels"}', '{"a":"\t"}', "{}",
                 '{"__metadata__":{"a":"b","a":"c"}}', *deep, *closed, *(f'{{"a":{text}}}' for text in closed),
                 *('{"a":{"dtype":%s,"shape":[],"data_offsets":[0,1]}}' % text for text in closed),
                 *('{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,1]}}' % text for text in closed)]:  # fmt: skip
        assert_refused(tmp_path, resealed(text.encode()) + b"\0", text[:60])
    for text in (b"\xff\xfe{}", b'{"\xc0\x80":1}', b'{"\xed\xa0\x80":1}', b"\0" * 64, '{"é":1}'.encode("latin1"),
                 json.dumps({"a": 1}).encode("utf-16")):  # fmt: skip
        assert_refused(tmp_path, resealed(text), text)


def test_tensors(good, tmp_path, little_memory):
    """Everything wrong that a header can say of a tensor, with the right checksums."""
    header, data = good
    begin, end = header["a"]["data_offsets"]
    size = len(data)
    offsets = [
        [begin + 1, end + 1], [begin - 1, end - 1], [end, begin], [begin, end + 1], [begin, end - 1], [0, 96],
        [begin], [], [begin, end, end], None, "0", {"0": 1}, [[begin], [end]],
        [float(begin), end], [True, end], [str(begin), end], [begin, None], [begin, -1], [-96, 0],
        [size, size + 96], [begin, 2**63 - 1], [2**63, 2**63 + 96], [2**64 + begin, 2**64 + end], [2**64 - 96, 0],
        [int("9" * 4000), int("9" * 4000) + 96],
    ]  # fmt: skip
    shapes = [
        [4, 6, 1, 2], [25], [], [0], [24.0], [-6, -4], [6, 4, -1], [True, 24], ["6", 4], [6, None], [[6, 4]],
        None, 24, "24", {}, [2**32, 2**32], [2**63], [2**62, 2**62, 0], [2**61 + 6, 4], [int("9" * 4000)],
        [2**63 - 1] * 64, [1] * 65 + [24], [6, 4] + [1] * 10**5, [24] + [1] * 64,
    ]  # fmt: skip
    dtypes = ["F64", "f32", "float32", "", None, 32, ["F32"], {"F32": 1}, "F32\0", "I128", "F4", "F6_E2M3", "BF16",
              True, "F8_E4M3", "x" * 10**5]  # fmt: skip
    for key, values in (("data_offsets", offsets), ("shape", shapes), ("dtype", dtypes)):
        for value in values:
            assert_refused(tmp_path, sealed(header | {"a": header["a"] | {key: value}}, data), f"{key} {value!r}"[:80])
    for entry in (None, [], "a", 3, {}, {"dtype": "F32"}, header["a"] | {"more": 1}, [header["a"]]):
        assert_refused(tmp_path, sealed(header | {"a": entry}, data), entry)
    other = header["w"]["data_offsets"]
    assert_refused(tmp_path, sealed(header | {"a": header["a"] | {"data_offsets": other}}, data), "an overlap")
    assert_refused(tmp_path, sealed({name: entry for name, entry in header.items() if name != "a"}, data), "a hole")
    assert_refused(tmp_path, sealed(header | {"more": header["c"]}, data), "a tensor of no entry")
    # Of no bytes, so that nothing but NumPy's own limits speaks against it.
    for shape in ([0, 2**62, 2**62], [2**63 - 1, 0], [0] + [2**40] * 3, [0] * 64, [1] * 63 + [0]):
        path = tmp_path / "empty"
        path.write_bytes(sealed(header | {"c": header["c"] | {"shape": shape}}, data))
        try:
            assert load(path)["c"].size == 0
        except ValueError as error:
            assert str(path) in str(error)


OTHER_TYPES = [None, True, False, 0, 1.0, 1e308, "x", [], ["int4"], {"a": 1}]
LAYOUTS = [f"nr{nr}-kr{kr}-{rest}" for nr, kr, rest in [
    (0, 1, "bytes_signed0-lanes1"), (255, 255, "bytes_signed255-lanes255"), (256, 1, "bytes_signed0-lanes1"),
    (16, 0, "bytes_signed0-lanes1"), (16, 3, "bytes_signed0-lanes1"), (1, 1, "bytes_signed0-lanes0"),
    (16, 1, "bytes_signed2-lanes1"), (1, 8, "bytes_signed1-lanes1"), (-1, 1, "bytes_signed0-lanes1"),
    (1, 1, "n_unit0-bytes_signed1"), (16, 2, "n_unit255-bytes_signed1"), (16, 2, "n_unit3-bytes_signed1"),
    (0, 0, "n_unit0-bytes_signed0"), (32, 2, "n_unit16-bytes_signed1"), (255, 255, "n_unit255-bytes_signed255"),
]]  # fmt: skip
WRONG = [
    [0], [18], [18, 100, 1], [18, 100.0], [True, True], ["18", "100"], [-18, 100], [0, 0], [0, 100], [18, 0],
    [17, 100], [18, 99], [18, 101], [100, 18], [2**32 + 18, 100], [18, 2**40], [20, 9], [9, 21], [4, 1],
    [3, 4], [0, 4, 64], [2, 4, 64], [4, 4, 64], [3, 64, 4], [2**59, 4, 64], [3, 2**40, 64], [3, 4, 0], [3, 0, 64],
    [3, 4, 64, 1], [-3, 4, 64], [3.0, 4, 64], [2, 5, 33], [4, 5, 33], [2**62, 2**62, 0], [2**59, 0, 0],
    [2**24, 0], [0, 2**24], [2**33, 0], [2**59, 0], [0, 2**59], [2**60, 2**60], [2**62, 2**62],
    -1, 12, 13, 16, 17, 32, 33, 64, 96, 128, 2**31, 2**40, 2**62, 2**63, 2**64, int("9" * 4000),
    "", "\0", "int8", "int4", "int2", "uint8", "nf4", "log4", "codebook4", "binary", "ternary", "trellis2", "trellis3",
    "float16", "float32", "float64", "bfloat16", *LAYOUTS,
]  # fmt: skip


def test_descriptions(good, tmp_path, little_memory):
    """Every wrong value for all that describes an entry, with the right checksums."""
    header, data = good
    own = own_of(header)
    tried = 0
    for name, description in own["entries"].items():
        for key, right in ({"group_size": None, "window": None, "seed": None, "more": None} | description).items():
            if key in ("isa", "rows", "k") or (key == "seed" and description["kind"].startswith("weight")):
                continue  # they only inform; any seed is one
            kind = int if right is None else type(right)
            for value in [value for value in WRONG if type(value) is kind] + OTHER_TYPES:
                if type(value) is type(right) and value == right or key == "group_size" and equal_groups(name, value):
                    continue
                entry = description | {key: value}
                raw = sealed(header, data, own | {"entries": own["entries"] | {name: entry}})
                assert_refused(tmp_path, raw, (name, key, str(value)[:50]), at_once=False)
                tried += 1
        for key in description:
            entry = {k: v for k, v in description.items() if k != key}
            if key not in ("group_size", "window"):
                raw = sealed(header, data, own | {"entries": own["entries"] | {name: entry}})
                assert_refused(tmp_path, raw, (name, "without", key))
        another = own["entries"]["seen" if name != "seen" else "a"]
        for entry in (None, [], "weight", 3, True, {}, [description], another):
            raw = sealed(header, data, own | {"entries": own["entries"] | {name: entry}})
            assert_refused(tmp_path, raw, (name, entry), at_once=False)
    assert tried > 800


def equal_groups(name, value):
    """One group a row is the same whatever its size beyond that is."""
    enough = {"row": 64, "fine": 70, "stack": 64, "scaled": 33}.get(name, 2**70)
    return type(value) is int and value % 32 == 0 and value >= enough
