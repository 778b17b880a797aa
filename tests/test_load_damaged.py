"""Damage anywhere is noticed, or changes nothing: there is no third way."""

import pytest
from cases import ints
from file_cases import every_kind, header_of, to_arrays

from qkernels import load, save

pytestmark = pytest.mark.any_isa
FILES = 1000


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "good"
    save(path, every_kind(), metadata={"made": "for tests"})
    return path.read_bytes(), everything(path)


def everything(path):
    """All bytes of all entries."""
    model = load(path)
    entries = {name: {key: (array.dtype, array.shape, array.tobytes()) for key, array in to_arrays(value).items()}
               for name, value in model.items()}
    return entries, list(model), model.metadata, model.descriptions


def one_of(damage, raw, start, choose):
    """The file's bytes after damage of some kind; start: where the data starts; choose(n): a number below n."""
    in_header = choose(2)
    low, high = (0, start) if in_header else (start, len(raw))
    at, size = low + choose(high - low), 1 + choose(200)
    other = low + choose(high - low)
    if damage == "bit":
        return raw[:at] + bytes([raw[at] ^ 1 << choose(8)]) + raw[at + 1 :]
    if damage == "bytes":
        return raw[:at] + bytes(choose(256) for _ in range(size)) + raw[at + size :]
    if damage == "run":
        return raw[:at] + bytes([choose(256)]) * size + raw[at + size :]
    if damage == "cut":
        return raw[:at]
    if damage == "cut out":
        return raw[:at] + raw[at + size :]
    if damage == "insertion":
        return raw[:at] + raw[other : other + size] + raw[at:]
    if damage == "copy":  # within the file, as a page that was written to the wrong place
        return raw[:at] + raw[other : other + size] + raw[at + size :]
    if damage == "swap":
        first, second = sorted((at // 64 * 64, other // 64 * 64))
        return (raw[:first] + raw[second : second + 64] + raw[first + 64 : second] + raw[first : first + 64]
                + raw[second + 64 :] if second > first else raw)
    digit = [i for i in range(8, start) if raw[i : i + 1].isdigit()]
    at = digit[choose(len(digit))]
    return raw[:at] + b"%d" % choose(10) + raw[at + 1 :]


DAMAGES = ["bit", "bytes", "run", "cut", "cut out", "insertion", "copy", "swap", "digit"]


def test_damaged_files(good, tmp_path):
    raw, want = good
    _, start = header_of(raw)
    path, noticed, numbers = tmp_path / "the file", 0, iter(ints(1, (FILES * 220,), 0, 2**40).tolist())
    for i in range(FILES):
        damage = DAMAGES[i % len(DAMAGES)]
        damaged = one_of(damage, raw, start, lambda n: next(numbers) % n)
        path.write_bytes(damaged)
        try:
            got = everything(path)
        except (OSError, TypeError, ValueError) as error:
            assert str(path) in str(error), (i, damage, error)
            noticed += 1
            continue
        assert got == want and damaged == raw, (i, damage)
    assert noticed > 0.9 * FILES


def test_every_bit_of_the_header_and_some_of_each_tensor(good, tmp_path):
    raw, _ = good
    header, start = header_of(raw)
    path = tmp_path / "the file"
    places = [*range(0, 200), *range(200, start, 29)]
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            places += {start + at for at in (begin, (begin + end) // 2, end - 1) if end > begin}
    for i, at in enumerate(places):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << i % 8]) + raw[at + 1 :])
        with pytest.raises((OSError, TypeError, ValueError), match="/the file: "):
            everything(path)


def test_cut_anywhere(good, tmp_path):
    raw, _ = good
    path = tmp_path / "the file"
    for size in [*range(0, 100), *range(100, len(raw), 997), len(raw) - 1]:
        path.write_bytes(raw[:size])
        with pytest.raises((OSError, ValueError), match="/the file: "):
            load(path)
