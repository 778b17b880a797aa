"""The randomized Hadamard transform: against the oracle, and against what it is for."""

import cases
import numpy as np
import pytest
from cases import assert_same, raises

import qkernels
from qkernels import ref
from qkernels.hadamard import rotated_moments
from qkernels.ref.hadamard import signs, splitmix64

WIDTHS = [*range(1, 18), 24, 31, 32, 48, 63, 64, 96, 127, 128, 129, 192, 256, 320, 384, 512, 640, 768, 1000, 1023,
          1024, 1536, 2048, 3072, 4096, 8192, 16384]  # fmt: skip
OPTIONS = [{}, {"inverse": True}, {"seed": 0}, {"seed": 2**64 - 1, "inverse": True}]


def matrix(k):
    """H of a row of k values, [k, k] in double, by Sylvester's construction."""
    block = np.ones((1, 1))
    while k % (2 * len(block)) == 0:
        block = np.block([[block, block], [block, -block]])
    return np.kron(np.eye(k // len(block)), block / np.sqrt(len(block)))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_same_bytes_as_the_oracle(isa, options):
    for k in WIDTHS:
        x = cases.floats(k, (3 if k < 1000 else 1, k), 3.0)
        got = qkernels.hadamard(x, **options)
        assert got.flags.c_contiguous
        assert_same(got, cases.oracle(ref.hadamard, x, **options), k)


@pytest.mark.parametrize("log", [15, 16, 17, 20])
def test_long_rows(isa, log):
    x = cases.floats(log, (2**log,))
    assert_same(qkernels.hadamard(x, seed=9), cases.oracle(ref.hadamard, x, seed=9), log)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 12, 32, 100, 384, 1536, 4096])
def test_is_the_matrix_product(isa, k):
    x, h, s = cases.floats(k, (5, k)), matrix(k), signs(k, 11)
    near = {"rtol": 0, "atol": 1e-5}  # of sums of up to 4096 numbers in [-1, 1] / 64
    np.testing.assert_allclose(qkernels.hadamard(x), x @ h, **near)
    np.testing.assert_allclose(qkernels.hadamard(x, seed=11), (x * s) @ h, **near)
    np.testing.assert_allclose(qkernels.hadamard(x, seed=11, inverse=True), x @ h * s, **near)


@pytest.mark.parametrize("k", [1, 6, 384, 1536, 16384])
def test_there_and_back(isa, k):
    x, w = cases.floats(1, (4, k)), cases.floats(2, (3, k))
    for seed in (None, 0, 123456789, 2**63):
        y, v = qkernels.hadamard(x, seed=seed), qkernels.hadamard(w, seed=seed)
        np.testing.assert_allclose(qkernels.hadamard(y, seed=seed, inverse=True), x, rtol=0, atol=2e-6)
        np.testing.assert_allclose(np.float64(y) @ v.T, np.float64(x) @ w.T, rtol=0, atol=1e-3)
        np.testing.assert_allclose(np.sum(np.float64(y) ** 2, -1), np.sum(np.float64(x) ** 2, -1), rtol=1e-5)


def test_rows_of_the_identity_are_exact(isa):
    """1 / sqrt(n) is a power of two."""
    for k in (1, 4, 16, 64, 12, 48, 256, 1024):
        assert_same(qkernels.hadamard(np.eye(k, dtype=np.float32)), (matrix(k) + 0.0).astype(np.float32), k)


def test_signs(isa):
    assert splitmix64(0, 0) == 0xE220A8397B1DCDAF and splitmix64(1234567, 4) == 16408922859458223821  # published
    k = 3 * 64 + 7  # odd: signs alone
    one = np.ones(k, np.float32)
    by_seed = [qkernels.hadamard(one, seed=seed) for seed in range(50)]
    for seed, got in enumerate(by_seed):
        assert_same(got, signs(k, seed), seed)
    assert_same(qkernels.hadamard(one), one)
    assert len({got.tobytes() for got in by_seed}) == 50
    assert abs(np.mean(by_seed)) < 0.05  # five standard deviations of 50 * 199 fair signs
    for seed in (np.uint8(3), np.int64(3)):
        assert_same(qkernels.hadamard(one, seed=seed), by_seed[3])


def test_an_outlier_is_spread(isa):
    x = np.zeros(512, np.float32)
    x[37] = 100
    np.testing.assert_allclose(np.abs(qkernels.hadamard(x, seed=5)), 100 / np.sqrt(512), rtol=1e-6)


def test_not_finite_values_stay_in_their_block(isa):
    for k in (3 * 4, 3 * 32, 3 * 128, 3 * 1024):
        for bad in (np.nan, -np.inf):
            for inverse in (False, True):
                x = cases.floats(k, (2, k))
                want = cases.oracle(ref.hadamard, x, seed=1, inverse=inverse).copy()
                x[1, k // 3] = bad
                got = qkernels.hadamard(x, seed=1, inverse=inverse)
                block = got[1, k // 3 : k // 3 * 2]
                assert not np.isfinite(block).any() and (np.isnan(block).all() if np.isnan(bad) else True)
                want[1, k // 3 : k // 3 * 2] = block
                np.testing.assert_array_equal(got, want)


def test_shapes_and_strides(isa):
    x = cases.floats(1, (2, 3, 48))
    want = cases.oracle(ref.hadamard, x, seed=4)
    for name, view in cases.strided(x).items():
        got = qkernels.hadamard(view, seed=4)
        assert_same(got, want, name)
        assert got.flags.c_contiguous
    assert_same(qkernels.hadamard(x[0, 0], seed=4), want[0, 0])
    assert_same(qkernels.hadamard(np.broadcast_to(x[:, :1], x.shape), seed=4), np.repeat(want[:, :1], 3, 1))
    assert qkernels.hadamard([8.0, 0.0]).tolist() == [np.float32(8) * np.float32(1 / np.sqrt(2))] * 2
    for shape in ((0,), (3, 0), (0, 5), (0, 0), (2, 0, 4)):
        got = qkernels.hadamard(np.empty(shape, np.float32), seed=4)
        assert_same(got, np.empty(shape, np.float32), shape)


def test_out(isa):
    x = cases.floats(1, (4, 96))
    want = cases.oracle(ref.hadamard, x, seed=4)
    for out in (np.empty_like(x), np.empty((96, 4), np.float32).T, np.empty((8, 192), np.float32)[::2, ::-2]):
        assert qkernels.hadamard(x, seed=4, out=out) is out
        assert_same(out, want)
    raises(ValueError, "out", qkernels.hadamard, x, out=x)
    raises(ValueError, "out", qkernels.hadamard, x, out=np.empty((4, 97), np.float32))
    raises(TypeError, "out", qkernels.hadamard, x, out=np.empty((4, 96)))


def test_threads_change_nothing(isa):
    for shape in ((1000, 384), (3, 65536), (70001, 6)):
        x = cases.floats(1, shape)
        with qkernels.num_threads(1):
            want = qkernels.hadamard(x, seed=4)
        with qkernels.num_threads(3):
            assert_same(qkernels.hadamard(x, seed=4), want, shape)


def test_bad_arguments():
    x = cases.floats(1, (3, 8))
    for bad in (x.astype(np.float64), x.astype(np.float16), x > 0, x.astype(int), x.astype(">f4"), None, "x", {}):
        raises(TypeError, "x", qkernels.hadamard, bad)
    raises(ValueError, "x", qkernels.hadamard, np.float32(1))
    raises(ValueError, "x", qkernels.hadamard, 1.0)
    for bad in (-1, 2**64, 2**70, np.int64(-1)):
        raises(ValueError, "seed", qkernels.hadamard, x, seed=bad)
    for bad in (1.0, "1", True, [1], np.float32(1), np.array([1])):
        raises(TypeError, "seed", qkernels.hadamard, x, seed=bad)


@pytest.mark.any_isa
@pytest.mark.parametrize("k", [0, 1, 3, 32, 96, 384, 4096])
def test_moments_are_rotated_as_rows_are(k):
    x = cases.floats(k, (7, k))
    rotated = ref.hadamard(x, seed=2**63 + 5).astype(np.float64)
    got = rotated_moments(x.astype(np.float64).T @ x, 2**63 + 5)
    np.testing.assert_allclose(got, rotated.T @ rotated, rtol=1e-5, atol=1e-5)
