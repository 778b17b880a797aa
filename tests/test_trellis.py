"""Trellis codes: the encoder equals its oracle byte for byte, is nearly optimal, and reaches the figures it was made
for."""

import itertools

import cases
import numpy as np
import pytest
from cases import assert_same

import qkernels
from qkernels import _core, trellis
from qkernels.ref import trellis as oracle

BITS = (2, 3, 4)
# bits, window, values in a word
WORDS = [(bits, window, word) for bits in BITS for window, word in ((6, 32), (12, 32), (12, 96))]


def samples(seed, shape):
    """Near N(0, 1): sums of twelve uniform numbers."""
    return sum(cases.ints(seed + i, shape, 0, 2**20) * 2.0**-20 - 0.5 for i in range(12)).astype(np.float32)


def decibels(x, error):
    return 10 * np.log10(np.square(x, dtype=np.float64).sum() / np.square(error, dtype=np.float64).sum())


def decoded(stream, scales, bits, window, k, group_size=None):
    """The weight that was encoded."""
    values = trellis.decode(stream, bits, window, k, group_size)
    return values * np.repeat(scales.astype(np.float32), group_size or k, axis=1)[:, :k]


@pytest.mark.parametrize(("bits", "window", "word"), WORDS)
def test_encoder_is_its_oracle(isa, bits, window, word):
    levels = trellis.levels(bits, window)
    x = samples(bits, (5, word)) * np.float32(40)
    x[1] = 0
    x[2] = np.rint(x[2])  # many costs are equal
    x[3] *= 1000
    got = _core.encode_trellis(x, levels, bits)
    assert_same(got, cases.oracle(oracle.encode, x, levels, bits))
    for threads in (1, 3):
        with qkernels.num_threads(threads):
            assert_same(_core.encode_trellis(np.concatenate([x] * 5), levels, bits), np.concatenate([got] * 5))


@pytest.mark.parametrize(("bits", "window"), [(2, 3), (2, 5), (2, 7), (3, 4), (3, 7), (4, 5), (4, 7)])
def test_small_windows(isa, bits, window):
    levels, x = cases.ints(window, (2**window,), -127, 127, np.int8), samples(bits, (9, 16)) * np.float32(50)
    assert_same(_core.encode_trellis(x, levels, bits), cases.oracle(oracle.encode, x, levels, bits))


@pytest.mark.any_isa
@pytest.mark.parametrize("bits", BITS)
def test_optimal(bits):
    """Free ends: as cheap as the best of all paths. A ring: never cheaper than the best of all rings, and seldom
    dearer."""
    window, steps = bits + 3, {2: 8, 3: 5, 4: 4}[bits]
    levels = cases.ints(bits, (2**window,), -127, 127, np.int8)
    rings = np.array(list(itertools.product(range(2**bits), repeat=steps)))
    ring = np.concatenate([rings, rings], axis=1)
    states = sum(ring[:, i : i + steps] << bits * i for i in range(3)) % 2**window
    best = 0
    for x in samples(3, (20, steps)) * np.float32(50):
        costs = np.square(x - levels[states].astype(np.float64)).sum(axis=1)
        path = oracle.viterbi(x, levels, bits)
        assert (path[:-1] >> bits == path[1:] % 2 ** (window - bits)).all()
        free = np.square(x - levels[path].astype(np.float64)).sum()
        assert free <= costs.min() * (1 + 1e-5)

        overlap = path[0] % 2 ** (window - bits)
        path = oracle.viterbi(x, levels, bits, overlap)
        assert path[0] % 2 ** (window - bits) == path[-1] >> bits == overlap
        cost = np.square(x - levels[path].astype(np.float64)).sum()
        assert cost == pytest.approx(costs[states[:, 0] % 2 ** (window - bits) == overlap].min(), rel=1e-5)
        best += cost <= costs.min() * (1 + 1e-5)
    assert best > 4


@pytest.mark.any_isa
def test_free_path_is_the_cheapest():
    """Every path that a stream without a tail can take."""
    bits, window, steps = 2, 4, 6
    levels, x = cases.ints(1, (2**window,), -127, 127, np.int8), samples(2, (10, steps)) * np.float32(60)
    symbols = np.array(list(itertools.product(range(4), repeat=steps + 1)))
    states = symbols[:, :-1] | symbols[:, 1:] << bits
    for row in x:
        least = np.square(row - levels[states].astype(np.float64)).sum(axis=1).min()
        path = oracle.viterbi(row, levels, bits)
        assert np.square(row - levels[path].astype(np.float64)).sum() == pytest.approx(least, rel=1e-5)


@pytest.mark.any_isa
@pytest.mark.parametrize(("bits", "window", "word"), WORDS)
def test_decode(bits, window, word):
    """Any bytes are a stream; the fast code's order of weights."""
    stream = cases.ints(bits, (6, 2 * word * bits // 8), 0, 255, np.uint8)
    levels = trellis.levels(bits, window)
    want = oracle.decode(stream.reshape(12, -1), levels, bits)
    if window == 6:
        place = [8 * i + q for q in range(8) for i in range(4)]
        want = want[:, place]
    k = 2 * word - 5
    assert_same(trellis.decode(stream, bits, window, k, None if window == 6 else word), want.reshape(6, -1)[:, :k])


@pytest.mark.any_isa
def test_levels():
    for window in (12, 13, 16):
        assert_same(trellis.levels(2, window), oracle.fine_levels(window))
    for bits in BITS:
        levels = trellis.levels(bits)
        assert levels.dtype == np.int8 and levels.shape == (64,) and levels.min() >= -127


@pytest.mark.parametrize(("bits", "least"), [(2, 10.60), (3, 16.00), (4, 21.30)])
def test_fast_code_on_gaussian(isa, bits, least):
    w = samples(11, (16, 4096)) * np.float32(0.02)
    stream, scales = trellis.encode(w, bits)
    assert stream.shape == (16, 4096 * bits // 8) and scales.dtype == np.float16 and scales.shape == (16, 1)
    assert decibels(w, decoded(stream, scales, bits, 6, 4096) - w) >= least


@pytest.mark.any_isa
@pytest.mark.parametrize(("bits", "least"), [(2, 11.45), (3, 17.20), (4, 22.90)])
def test_fine_code_on_gaussian(bits, least):
    w = samples(13, (8, 2048))
    stream, scales = trellis.encode(w, bits, 16, scale_dtype="float32")
    error = decoded(stream, scales, bits, 16, 2048) - w
    assert decibels(w, error) >= least - 0.1  # so few samples stray by a few hundredths


@pytest.mark.parametrize("group_size", [None, 32, 96])
@pytest.mark.parametrize("k", [1, 31, 100, 320])
def test_widths_and_groups(isa, k, group_size):
    for bits, window in ((2, 6), (3, 12)):
        w = samples(k, (3, k))
        w[1] = 0
        stream, scales = trellis.encode(w, bits, window, group_size)
        code = trellis.Code(bits, window, k, group_size)
        assert stream.shape == (3, code.width * bits // 8) and scales.shape == (3, code.groups)
        got = decoded(stream, scales, bits, window, k, group_size if code.groups > 1 else None)
        assert np.abs(got[1]).max() < 1e-5
        assert np.square(got - w).sum() < 0.35 * np.square(w).sum()


@pytest.mark.any_isa
def test_resumed_slabs(monkeypatch):
    monkeypatch.setattr(trellis, "SLAB", {True: 128, False: 128})
    w = samples(5, (7, 64))
    stream, scales = trellis.encode(w, 2)
    slabs = trellis.encode_slabs(w, 2)
    kept = [next(slabs), next(slabs)]
    kept += trellis.encode_slabs(w, 2, start=sum(len(part) for part, _ in kept))
    assert_same(np.concatenate([part for part, _ in kept]), stream)
    assert_same(np.concatenate([part for _, part in kept]), scales)
    assert [part.shape for part in trellis.encode(w[:0], 2)] == [(0, 16), (0, 1)]


@pytest.mark.any_isa
@pytest.mark.parametrize(("bits", "window"), [(2, 6), (4, 6), (2, 12)])
@pytest.mark.parametrize("group_size", [None, 64])
def test_feedback(bits, window, group_size):
    k = 300
    w, x = samples(6, (8, k)), samples(7, (k, 1000)) + 0.8 * samples(8, (1, 1000))
    hessian = x.astype(np.float64) @ x.T / 1000
    plain = trellis.encode(w, bits, window, group_size)
    for got, want in zip(trellis.encode(w, bits, window, group_size, hessian=np.eye(k)), plain):
        assert_same(got, want)
    loss = []
    for stream, scales in (plain, trellis.encode(w, bits, window, group_size, hessian=hessian)):
        error = decoded(stream, scales, bits, window, k, group_size).astype(np.float64) - w
        loss.append(np.trace(error @ hessian @ error.T))
    assert loss[1] < 0.9 * loss[0]


@pytest.mark.any_isa
def test_bad_input():
    w = samples(9, (2, 64))
    cases.raises(ValueError, "scale_dtype", trellis.encode, w * np.float32(1e8), 2)
    for hessian in (np.eye(63), np.ones(64), -np.eye(64)):
        cases.raises(ValueError, "hessian", trellis.encode, w, 2, hessian=hessian)
    cases.raises(ValueError, "x", _core.encode_trellis, np.full((1, 32), np.float32(2e12)), trellis.levels(2), 2)
    cases.raises(ValueError, "x", _core.encode_trellis, np.full((1, 32), np.float32(np.nan)), trellis.levels(2), 2)
