"""pack and unpack against the oracle, and against each other."""

import cases
import numpy as np
import pytest
from cases import assert_same

import qkernels
from qkernels import ref

BITS = [1, 2, 4]
ORDERS = ["low_first", "high_first"]
SHAPES = [(n,) for n in (0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 129, 1000)]
SHAPES += [(3, 5), (4, 1), (2, 3, 17), (0, 5), (5, 0), (2, 130)]


def values(bits, shape, signed, seed=1):
    if signed:
        return cases.ints(seed, shape, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, np.int8)
    return cases.ints(seed, shape, 0, (1 << bits) - 1, np.uint8)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [True, False])
def test_pack_and_back(isa, bits, order, signed):
    for shape in SHAPES:
        q = values(bits, shape, signed)
        packed = qkernels.pack(q, bits, order=order)
        assert_same(packed, ref.pack(q, bits, order=order), shape)
        assert packed.shape == shape[:-1] + (-(-shape[-1] * bits // 8),)
        back = qkernels.unpack(packed, bits, shape[-1], signed=signed, order=order)
        assert_same(back, q, shape)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [True, False])
def test_unpack_every_byte(isa, bits, order, signed):
    p = np.arange(256, dtype=np.uint8)
    for length in (256 * 8 // bits, 256 * 8 // bits - 1):
        got = qkernels.unpack(p, bits, length, signed=signed, order=order)
        assert_same(got, ref.unpack(p, bits, length, signed=signed, order=order))


def test_by_hand(isa):
    assert qkernels.pack(np.uint8([1, 2, 3]), 4).tolist() == [0x21, 0x03]
    assert qkernels.pack(np.uint8([1, 2, 3]), 4, order="high_first").tolist() == [0x12, 0x30]
    assert qkernels.pack(np.int8([-1, -8, 7]), 4).tolist() == [0x8F, 0x07]
    assert qkernels.pack(np.uint8([1, 0, 2, 3]), 2).tolist() == [0b11100001]
    assert qkernels.pack(np.int8([-1, 0, 0, -1]), 1).tolist() == [0b1001]
    assert qkernels.unpack(np.uint8([0x8F]), 4, 2).tolist() == [-1, -8]
    assert qkernels.unpack(np.uint8([0x8F]), 4, 2, signed=False).tolist() == [15, 8]


@pytest.mark.parametrize("bits", BITS)
def test_defaults(isa, bits):
    q = values(bits, (3, 21), signed=True)
    packed = qkernels.pack(q, bits)
    assert_same(packed, ref.pack(q, bits, order="low_first"))
    assert_same(qkernels.unpack(packed, bits, 21), q)


@pytest.mark.parametrize("bits", BITS)
def test_padding_bits_are_zero_and_ignored(isa, bits):
    n = 8 // bits + 1
    ones = np.full(n, (1 << bits) - 1, np.uint8)
    assert qkernels.pack(ones, bits).tolist() == [255, (1 << bits) - 1]
    assert qkernels.pack(ones, bits, order="high_first").tolist() == [255, 256 - (1 << (8 - bits))]
    full = np.full(2, 255, np.uint8)
    assert_same(qkernels.unpack(full, bits, n, signed=False), ones)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [True, False])
def test_one_value_out_of_range_anywhere(isa, bits, signed):
    """Every position of a long row: in the vector body and in the tail."""
    good = values(bits, (131,), signed)
    low = -(1 << (bits - 1)) if signed else 0
    over = [low + (1 << bits), good.dtype.type(np.iinfo(good.dtype).max)]
    if signed:
        over += [low - 1, -128]
    for place in list(range(0, 131, 9)) + [127, 128, 129, 130]:
        for value in over:
            bad = good.copy()
            bad[place] = value
            with pytest.raises(ValueError, match="^q"):
                qkernels.pack(bad, bits)


@pytest.mark.parametrize("bits", BITS)
def test_strided(isa, bits):
    q = values(bits, (6, 37), signed=True)
    packed = ref.pack(q, bits)
    for name, view in cases.strided(q).items():
        got = qkernels.pack(view, bits)
        assert_same(got, packed, name)
        assert got.flags.c_contiguous
    for name, view in cases.strided(packed).items():
        got = qkernels.unpack(view, bits, 37)
        assert_same(got, q, name)
        assert got.flags.c_contiguous
    same = np.broadcast_to(q[0], q.shape)
    assert_same(qkernels.pack(same, bits), ref.pack(same, bits))
