"""Arrays of 2**59 rows of no values take no memory: what loops over their rows is skipped, or refused, at once."""

import io
import signal

import numpy as np
import pytest
from cases import raises

import qkernels
from qkernels import QuantizedWeight, _core, load, pack_b, qat, save, trellis
from qkernels.calibration import HistogramObserver, InputStatistics, MinMaxObserver, MovingAverageObserver

pytestmark = pytest.mark.any_isa
N = 2**59
FORMATS = ("int8", "int4", "nf4", "codebook4", "log4", "binary", "ternary", "trellis2")


class TooLong(Exception):
    pass


@pytest.fixture(autouse=True)
def patience():
    """All of it takes no time; what loops is ended, as everything can be interrupted."""

    def end(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def empty(dtype, *shape):
    return np.empty(shape or (N, 0), dtype)


def state_of(n, k, format="int4"):
    blocks = 32 if format.startswith("trellis") else 2
    return {"version": np.array(1), "format": np.array(format), "shape": np.array([n, k]), "group_size": np.array(32),
            "codes": empty(np.uint8, n, min(k, k // blocks * 8)), "scales": empty(np.float16, n, -(-k // 32))}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(N, 0), (0, N), (2**25, 0), (0, 2**25)])
def test_weights_are_refused(shape, format):
    w = empty(np.float32, *shape)
    raises(ValueError, "w", qkernels.quantize_weight, w, format, group_size=32)
    raises(ValueError, "w", qkernels.quantize_weight, w, format, rotate=True, group_size=64)
    if format in ("int4", "trellis2"):
        raises(ValueError, "state", QuantizedWeight.from_state, state_of(*shape, format))
    if format == "int4":
        raises(ValueError, "q", QuantizedWeight.from_int4, empty(np.int8, *shape), empty(np.float16, shape[0], 0), group_size=32)
        raises((ValueError, MemoryError), None, QuantizedWeight.from_int4, empty(np.int8, *shape), np.float16(1))


def test_weights_from_elsewhere():
    file = io.BytesIO()
    np.savez(file, **state_of(N, 0))
    file.seek(0)
    raises(ValueError, "state", QuantizedWeight.from_state, np.load(file))
    qw = qkernels.quantize_weight(empty(np.float32, 5, 0), "int4", group_size=32)
    raises(ValueError, "shape", QuantizedWeight.from_memory, qw.packed.memory, "int4", (N, 0), qw.packed.layout,
           group_size=32, scale_dtype="float16", has_zero_points=False)
    raises(ValueError, "w", qkernels.quantize_weight, empty(np.float32, N, 0, 0), "int4")
    raises(ValueError, "w", qkernels.quantize_weight, empty(np.float32, 0, 2**40, 4), "int4")


def test_large_ones_that_are_not_refused():
    for shape in ((2**20, 0), (0, 2**20)):
        for format in FORMATS:
            qw = qkernels.quantize_weight(empty(np.float32, *shape), format, group_size=32)
            assert qw.shape == qw.dequantize().shape == shape
            again = QuantizedWeight.from_state(qw.to_state())
            assert again.shape == shape and again.repacked(_core.weight_layout()).shape == shape


def test_packed_without_the_checks_of_python():
    packed = _core.PackedWeight(empty(np.uint8), empty(np.float16), None, 1, 32)
    assert packed.shape == (N, 0) and packed.unpack()[0].shape == (N, 0)
    assert packed.nbytes < 2**10
    assert _core.PackedWeight.of_memory(packed.memory, N, 0, 0, 1, 32, None, 0, 2, False, packed.layout).shape == (N, 0)


def test_packed_matrices(tmp_path):
    b = pack_b(empty(np.int8, 2**31, 0))
    assert b.shape == b.unpack().shape == (2**31, 0) and b.zero_point.shape == (0,)
    raises(ValueError, "b_q", pack_b, empty(np.int8))
    raises((ValueError, MemoryError), None, pack_b, empty(np.int8, 0, N))
    assert qkernels.int8_gemm(empty(np.uint8, 3, 0), empty(np.int8, 0, 0)).shape == (3, 0)
    save(tmp_path / "b", {"b": pack_b(empty(np.int8, 2**20, 0)), "a": empty(np.float32)})
    assert load(tmp_path / "b")["b"].shape == (2**20, 0) and load(tmp_path / "b")["a"].shape == (N, 0)


def test_products():
    assert qkernels.int8_gemm(empty(np.uint8), empty(np.uint8, 0, 0)).shape == (N, 0)
    assert qkernels.int8_gemm(empty(np.uint8, N, 0, 3), empty(np.uint8, 3, 2)).shape == (N, 0, 2)
    assert qkernels.int8_gemm(empty(np.uint8, N, 3, 0), empty(np.uint8, N, 0, 0), 0.5).shape == (N, 3, 0)
    assert qkernels.binary_gemm(empty(np.uint8), empty(np.uint8, 0, 0)).shape == (N, 0)
    none = qkernels.quantize_weight(empty(np.float32, 0, 0), "int8")
    assert qkernels.linear(empty(np.float32), none).shape == (N, 0)
    assert qkernels.linear(empty(np.float32), none, activations="float32", activation="gelu").shape == (N, 0)


def test_elementwise():
    x = empty(np.float32)
    assert qkernels.pack(empty(np.uint8), 4).shape == (N, 0)
    assert qkernels.unpack(empty(np.uint8), 4, 0).shape == (N, 0)
    assert qkernels.hadamard(x, seed=3).shape == (N, 0)
    for options in ({}, {"group_size": 4}):
        qp = qkernels.choose_qparams(x, **options)
        q = qkernels.quantize(x, qp.scale, qp.zero_point, **options)
        assert q.shape == qkernels.dequantize(q, qp.scale, **options).shape == (N, 0)
        assert qkernels.fake_quantize(x, qp.scale, **options).shape == (N, 0)
        assert qat.fake_quantize_backward(x, x, qp.scale, **options).shape == (N, 0)
    for method in ("percentile", "mse", "entropy"):
        assert qkernels.choose_qparams(x, method=method, group_size=4).scale.shape == (N, 0)
    for axis in (None, 1):
        assert qkernels.dynamic_quantize(x, axis=axis)[0].shape == (N, 0)
    raises((ValueError, MemoryError), None, qkernels.dynamic_quantize, x, axis=0)
    assert qkernels.Codebook([1, 2]).encode(x).shape == qkernels.Codebook([1, 2]).decode(empty(np.uint8)).shape == (N, 0)
    assert trellis.decode(empty(np.uint8, 4, 0), 2, 6, 0).shape == (4, 0)


def test_calibration():
    x = empty(np.float32)
    assert InputStatistics(0).observe(x).count in (0, N)
    for observer in (MinMaxObserver, HistogramObserver, MovingAverageObserver):
        assert observer().observe(x).count == observer(axis=1).observe(x).count == 0
