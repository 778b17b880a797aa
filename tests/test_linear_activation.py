"""gelu and silu of linear: within 4 ulp of their definitions in float64, the same bits on every ISA."""

import cases
import numpy as np
import pytest
from cases import assert_same
from conftest import ISAS
from weight_cases import MODES, packed, weight

import qkernels
from qkernels import ref
from qkernels.ref import activation

DEFINITIONS = {"gelu": activation.gelu, "silu": activation.silu}
BY_NAME = pytest.mark.parametrize("name", DEFINITIONS)


def inputs(m, n, k):
    """The sums reach from far beyond to next to nothing; some are zeros of either sign."""
    w, x = weight(1, n, k, "int4", 32, False), cases.floats(2, (m, k), 30.0)
    x[1::4] *= np.float32(1e-6)
    x[2::4] = 0
    return x, w, cases.floats(3, (n,), 4.0)


def assert_close(got, y, name):
    """got is the activation of y, but for 4 units in the last place; below the normal range, of its least number."""
    want = DEFINITIONS[name](y)
    ulp = np.spacing(np.maximum(np.abs(want), 2.0**-126).astype(np.float32)).astype(np.float64)
    assert got.dtype == np.float32 and got.shape == y.shape
    assert (np.abs(got - want) <= 4 * ulp).all()


@BY_NAME
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(mode.values()))
def test_close_to_the_definition(isa, name, mode):
    for m, n, k in [(1, 1, 32), (7, 130, 300), (40, 65, 100), (5, 33, 0)]:
        x, w, bias = inputs(m, n, k)
        for shift in (None, bias):
            y = cases.oracle(ref.linear, x, w, shift, **mode)
            assert_close(qkernels.linear(x, packed(w), shift, activation=name, **mode), y, name)


@BY_NAME
def test_oracle(name):
    x, w, bias = inputs(7, 20, 100)
    assert_close(ref.linear(x, w, bias, activation=name), ref.linear(x, w, bias), name)


@BY_NAME
def test_every_size_of_result(isa, name):
    """The bias alone: every power of two, both tails, where the result is subnormal and where it is x."""
    sizes = np.ldexp(np.float32(1.37), np.arange(-140, 7))
    bias = np.concatenate([sizes, -sizes, np.linspace(-110, 20, 3001), [0.0, -0.0, 3e38, -3e38]]).astype(np.float32)
    qw = packed(weight(1, bias.size, 0, "int4"))
    assert_close(qkernels.linear(np.zeros((2, 0), np.float32), qw, bias, activation=name), np.stack([bias, bias]), name)


@BY_NAME
def test_same_bits_everywhere(select_isa, name):
    x, w, bias = inputs(40, 130, 300)
    answers = []
    for isa in ISAS:
        select_isa(isa)
        for threads in (1, 2):
            with qkernels.num_threads(threads):
                answers.append(qkernels.linear(x, packed(w), bias, activation=name))
    for answer in answers:
        assert_same(answer, answers[0])
    out = np.empty((80, 130), np.float32)[::2]
    assert qkernels.linear(x, packed(w), bias, activation=name, out=out) is out
    assert_same(out, answers[0])
