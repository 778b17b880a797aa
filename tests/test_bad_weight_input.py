"""Bad arguments of quantize_weight and linear: the right exception, which names the argument."""

import cases
import numpy as np
import pytest
from cases import raises
from weight_cases import MODES, packed, weight

import qkernels

pytestmark = pytest.mark.filterwarnings("error")

N, K = 5, 64
W, X = cases.floats(1, (N, K)), cases.floats(2, (3, K))
NOT_FLOATS = [X.astype(np.float64), X > 0, X.astype(int), X.astype(X.dtype.newbyteorder()), X.astype(complex),
              X.astype(object), None, "x", {}, [["a"]]]  # fmt: skip
NEW = ("nf4", "codebook4", "log4", "binary", "ternary", "trellis2", "trellis3", "trellis4")


@pytest.fixture
def qw(isa):
    return packed(weight(1, N, K, "int4", 32))


def test_weights():
    for bad in [*NOT_FLOATS, W.astype(np.float16)]:
        raises(TypeError, "w", qkernels.quantize_weight, bad)
    for bad in (W[0], W[None, None], W[0, 0, None].reshape(()), 1.0, []):
        raises(ValueError, "w", qkernels.quantize_weight, bad)
    for bad in (np.nan, np.inf, -np.inf):
        spoiled = W.copy()
        spoiled[2, 1] = bad
        for method in ("minmax", "mse"):
            raises(ValueError, "w", qkernels.quantize_weight, spoiled, method=method)


def test_format():
    for bad in ("int3", "", None, 8, np.int8, ["int8"], "INT8", np.array(["int8"])):
        text = raises(ValueError, "format", qkernels.quantize_weight, W, bad)
        assert "int4" in text and "trellis2" in text


def test_group_size():
    for bad in (0, -1, -32, 1, 16, 31, 33, 2**70):
        for format in ("int8", "int4", "int2"):
            text = raises(ValueError, "group_size", qkernels.quantize_weight, W, format, group_size=bad)
            assert "32" in text or abs(bad) > 2**60
    for bad in (32.0, "32", [32], True, (32, 32), np.float32(32)):
        raises(TypeError, "group_size", qkernels.quantize_weight, W, group_size=bad)
    for good in (32, np.int64(64), 2**40, 2**62):
        assert qkernels.quantize_weight(W, group_size=good).group_size == good


def test_options():
    for bad in ("entropy", "", 1, "absmean", ["gptq"]):
        raises(ValueError, "method", qkernels.quantize_weight, W, method=bad)
    for bad in ("float64", "bfloat16", "", None, 2):
        raises(ValueError, "scale_dtype", qkernels.quantize_weight, W, scale_dtype=bad)
    raises(ValueError, "full_range", qkernels.quantize_weight, W, symmetric=False, full_range=True)
    with pytest.raises(TypeError, match="speed"):
        qkernels.quantize_weight(W, speed=3)


def test_options_of_other_formats():
    for format in NEW:
        for option in ("symmetric", "full_range"):
            text = raises(ValueError, option, qkernels.quantize_weight, W, format, **{option: option == "full_range"})
            assert "int8" in text and format in text
    for format, method in [("nf4", "absmean"), ("binary", "minmax"), ("ternary", "minmax"), ("trellis2", "minmax")]:
        raises(ValueError, "method", qkernels.quantize_weight, W, format, method=method)
    options = {"codebook": "row", "importance": np.ones(K), "window": 12, "seed": 1}
    for option, value in options.items():
        raises(ValueError, option, qkernels.quantize_weight, W, "int4", **{option: value})
    raises(ValueError, "window", qkernels.quantize_weight, W, "codebook4", window=12)


def test_options_of_codebooks_trellises_and_rotation():
    def bad(option, value, format, error=ValueError, **more):
        raises(error, option, qkernels.quantize_weight, W, format, **{option: value}, **more)

    for value in ("column", "", 1, True):
        bad("codebook", value, "codebook4")
    for value in (np.ones(N), np.ones((K, N)), np.ones((1, K)), -np.ones(K), np.full(K, np.nan), np.zeros((N, K)), 1.0):
        bad("importance", value, "codebook4")
    bad("importance", np.ones(K, int), "codebook4", TypeError)
    bad("importance", np.ones(K), "codebook4", rotate=True)
    for value in (0, 6, 11, 17, -12, 2**70):
        bad("window", value, "trellis3")
    bad("window", 12.0, "trellis3", TypeError)
    for value in (-1, 2**64):
        bad("seed", value, "int4", rotate=True)
    bad("seed", 1.0, "int4", TypeError, rotate=True)
    raises(ValueError, "w", qkernels.quantize_weight, np.full((1, 64), 3e38, np.float32), rotate=True)


def test_x(qw):
    for bad in NOT_FLOATS:
        raises(TypeError, "x", qkernels.linear, bad, qw)
    for bad in (X[:, :63], X[0, 0, None].reshape(()), X[:, :0], X[:, :, None], [1.0, 2.0], 1.0):
        raises(ValueError, "x", qkernels.linear, bad, qw)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(mode.values()))
def test_x_is_not_finite(qw, mode):
    """Wherever it is, in whatever rows, blocks and vectors, on one thread or two."""
    for bad in (np.nan, np.inf, -np.inf, -np.float32(np.nan)):
        for rows, at in [(1, (0, 0)), (1, (0, K - 1)), (40, (39, 33)), (40, (20, 31)), (7, (6, 1))]:
            x = cases.floats(3, (rows, K))
            x[at] = bad
            raises(ValueError, "x", qkernels.linear, x, qw, **mode)
    wide, large = packed(weight(1, 300, 3000, "int4")), cases.floats(4, (300, 3000))
    large[299, 2999] = np.nan
    with qkernels.num_threads(2):
        raises(ValueError, "x", qkernels.linear, large, wide, **mode)
    raises(ValueError, "x", qkernels.linear, np.float16([[np.inf] * K]), qw, **mode)


def test_qw():
    for bad in (W, None, qkernels.pack_b(np.ones((K, N), np.int8)), "int4", packed(weight(1, N, K)).packed):
        raises(TypeError, "qw", qkernels.linear, X, bad)


def test_bias(qw):
    for bad in (np.ones(N + 1, np.float32), np.ones((1, N), np.float32), np.float32(1), np.ones(0, np.float32), 1.0):
        raises(ValueError, "bias", qkernels.linear, X, qw, bad)
    for bad in (np.nan, np.inf, -np.inf, 1e39):
        raises(ValueError, "bias", qkernels.linear, X, qw, np.full(N, bad))
    others = [np.ones(N, kind) for kind in (int, np.int32, bool, complex)]
    for bad in [*others, "b" * N, ["a"] * N, object()]:
        raises(TypeError, "bias", qkernels.linear, X, qw, bad)


def test_modes(qw):
    for bad in ("int4", "", None, 8, np.float32, ["int8"]):
        raises(ValueError, "activations", qkernels.linear, X, qw, activations=bad)
        raises(ValueError, "activation_scales", qkernels.linear, X, qw, activation_scales=bad)
    raises(ValueError, "activation_scales", qkernels.linear, X, qw, activations="float32", activation_scales="group")


def test_activation(qw):
    for bad in ("tanh", "", "ReLU", "GELU", (1.0, 0.0), (0.0, np.nan), (np.nan, 1.0)):
        text = raises(ValueError, "activation", qkernels.linear, X, qw, activation=bad)
        assert not isinstance(bad, str) or "gelu" in text
    for bad in (6.0, object(), ("a", "b"), (None, 1.0), True, (1.0,), (0, 1, 2), b"relu"):
        raises((TypeError, ValueError), "activation", qkernels.linear, X, qw, activation=bad)


def test_out(qw):
    good = np.zeros((3, N), np.float32)
    others = [good.astype(kind) for kind in (np.float64, np.float16, good.dtype.newbyteorder())]
    for bad in [*others, good.tolist()]:
        raises(TypeError, "out", qkernels.linear, X, qw, out=bad)
    for bad in (good[:2], good.T, good[None], good.ravel(), good[:, :1]):
        raises(ValueError, "out", qkernels.linear, X, qw, out=bad)
    good.flags.writeable = False
    raises(ValueError, "out", qkernels.linear, X, qw, out=good)


def test_sizes_that_overflow():
    """Views of one number that claim more than the address space."""
    one = np.float32(1)
    tall = np.broadcast_to(one, (2**40, 1))
    wide = qkernels.quantize_weight(np.ones((70_000, 1), np.float32))
    raises((MemoryError, ValueError), None, qkernels.linear, np.broadcast_to(one, (2**60, 1)), wide)
    raises((MemoryError, ValueError), None, qkernels.linear, tall, wide)
    raises((MemoryError, ValueError), None, qkernels.quantize_weight, np.broadcast_to(one, (2**30, 2**30)))
