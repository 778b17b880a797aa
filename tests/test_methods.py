"""quantize_weight(method=...): every method with every format that it takes, against what each promises."""

import cases
import numpy as np
import pytest
from cases import assert_same, raises
from rounding_cases import second_moments

import qkernels
from qkernels import rounding
from qkernels.calibration import InputStatistics
from qkernels.formats import FORMATS
from qkernels.grids import Grid
from qkernels.groups import Groups
from qkernels.hadamard import rotated_moments
from qkernels.methods import CALIBRATED, TAKERS
from qkernels.ref import gptq as oracle
from qkernels.ref import hqq
from qkernels.signs import Signs, Ternary
from qkernels.tables import Table

pytestmark = [pytest.mark.any_isa, pytest.mark.filterwarnings("error")]

N, K = 24, 100
INPUTS = cases.floats(2, (300, K)) * (2.0 ** cases.ints(3, (K,), -3, 3)).astype(np.float32)
INPUTS[:, 1:] += np.float32(0.9) * INPUTS[:, :-1]  # correlated
INPUTS += np.float32(0.25)
SEEN = InputStatistics(K).observe(INPUTS)
WEIGHT = cases.floats(1, (N, K)) * cases.scales(4, (N, 1), 1.0)
PAIRS = [(method, format) for method, takers in TAKERS.items() for format in takers]
ROWS = np.float32([[-1.0, 0.5, 0.25, 2.0], [0, 0, 0, 0]])


def level_sets():
    by_row = np.sort(cases.ints(5, (2, 16), -127, 127, np.int8), axis=1)
    yield from (Grid("uint4", symmetric, False, "float16") for symmetric in (True, False))
    yield from (Table(levels, "float16") for levels in (FORMATS["nf4"].levels, by_row))
    yield from (Signs("float16"), Ternary("float16"))


def output_error(qw, w=WEIGHT, x=INPUTS):
    """Mean squared error of the outputs."""
    return np.square(x.astype(np.float64) @ (qw.dequantize().astype(np.float64) - w).T).mean()


@pytest.mark.parametrize("levels", list(level_sets()), ids=lambda levels: type(levels).__name__)
def test_levels_and_codes_agree(levels):
    """The levels of codes times the scale are no farther from the values than the oracle's nearest."""
    groups = Groups(ROWS, None)
    fitted = levels.fit(groups, "mse")
    codes = rounding.round_to_nearest(groups, levels, fitted)
    values = rounding.dequantized(groups, levels, fitted, codes)
    for row, (found, want) in enumerate(zip(values, ROWS)):
        own = [entries[row : row + 1] for entries in fitted]
        reachable = np.unique([levels.integers(np.uint8([[code]]), *own)[0, 0] for code in range(16)]
                              if not isinstance(levels, (Signs, Ternary)) else
                              ([-1, 1] if isinstance(levels, Signs) else [-1, 0, 1]))
        every = reachable * np.float32(own[0][0])
        np.testing.assert_allclose(np.abs(found - want), np.abs(want[:, None] - every).min(axis=1), atol=1e-6)


@pytest.mark.parametrize("format, options", [
    ("int4", {}), ("int4", {"symmetric": False}), ("int2", {"symmetric": False}), ("int8", {}), ("nf4", {}),
    ("log4", {}), ("binary", {}), ("ternary", {}),
])  # fmt: skip
@pytest.mark.parametrize("group_size", [None, 32])
def test_gptq_is_what_was_published(format, options, group_size):
    """Feedback of errors finds the same codes as changing what is left of the rows."""
    w = WEIGHT[:6, :70]
    hessian = second_moments(70)
    seen = InputStatistics(70)
    seen.count, seen._products = 1, hessian
    got = qkernels.quantize_weight(w, format, group_size=group_size, method="gptq", calibration=seen, ranges=None,
                                   **options)
    codes, scales, zero_points = got.packed.unpack()
    zero_points = np.full(scales.shape, FORMATS[format].zero) if zero_points is None else zero_points
    levels = {"binary": np.int8([-1, 1]), "ternary": np.int8([-128, -1, 0, 1])}.get(format, got.levels)

    def nearest(column, values):
        group = 0 if group_size is None else column // group_size
        scale, zero = scales[:, group].astype(np.float64), zero_points[:, group].astype(np.float64)
        if levels is None:
            code = np.clip(np.rint(values / scale) + zero, 0, 2 ** FORMATS[format].bits - 1)
            return code, (code - zero) * scale
        code = np.abs(values[:, None] / scale[:, None] - levels.astype(np.float64)).argmin(axis=1)
        return code, levels[code] * scale

    want = oracle.round_columns(w, hessian, nearest)
    meant = want if levels is None else levels[want]
    np.testing.assert_array_equal(codes if levels is None else levels[codes], meant)
    rounded = qkernels.quantize_weight(w, format, group_size=group_size, ranges="mse", **options).packed.unpack()[0]
    assert (rounded != codes).any()


@pytest.mark.parametrize("format", TAKERS["gptq"])
@pytest.mark.parametrize("group_size", [None, 32])
def test_uncorrelated_inputs_round_to_nearest(format, group_size):
    """Bit for bit, with columns that have no inputs, too."""
    seen = InputStatistics(K)
    seen.count, seen._products = 7, np.diag(cases.scales(6, (K,)).astype(np.float64) * (np.arange(K) % 5 > 0))
    want = qkernels.quantize_weight(WEIGHT, format, group_size=group_size, ranges="mse")
    for method in ("gptq", "ldlq"):
        got = qkernels.quantize_weight(WEIGHT, format, group_size=group_size, method=method, calibration=seen)
        for part, expected in zip(got.packed.unpack(), want.packed.unpack()):
            assert part is expected is None or assert_same(part, expected) is None


@pytest.mark.parametrize("format", [name for name in FORMATS if name.startswith("trellis")])
def test_trellises_with_uncorrelated_inputs_of_one_size(format):
    seen = InputStatistics(K)
    seen.count, seen._products = 1, np.eye(K)
    want = qkernels.quantize_weight(WEIGHT, format)
    got = qkernels.quantize_weight(WEIGHT, format, method="ldlq", calibration=seen)
    assert_same(got.dequantize(), want.dequantize())


@pytest.mark.parametrize("method, format", PAIRS)
@pytest.mark.parametrize("group_size", [None, 32])
def test_outputs_are_better_than_with_rounding_to_nearest(method, format, group_size):
    scheme = {"group_size": group_size, "symmetric": format not in TAKERS["hqq"]}
    nearest = qkernels.quantize_weight(WEIGHT, format, **scheme, ranges="mse" if method in CALIBRATED else None)
    got = qkernels.quantize_weight(WEIGHT, format, method=method, calibration=SEEN, **scheme)
    # hqq has other aims than the outputs of these inputs; the words of a trellis are 32 columns, of all sizes here
    bound = {"rtn": 1, "awq": 1, "hqq": 3}.get(method, 1 if format.startswith("trellis") else 0.8)
    assert output_error(got) <= bound * output_error(nearest) * (1 + 1e-6)
    assert got.shape == WEIGHT.shape and got.format == format
    x = INPUTS[:5]
    exact = x.astype(np.float64) @ got.dequantize().T.astype(np.float64)
    y = qkernels.linear(x, got, activations="float32")
    np.testing.assert_allclose(y, exact, atol=1e-5 * np.abs(exact).max())
    assert_same(qkernels.QuantizedWeight.from_state(got.to_state()).dequantize(), got.dequantize())


@pytest.mark.parametrize("method", ["gptq", "ldlq", "adaround"])
def test_rotated(method):
    """With second moments that are rotated alike: what the product x @ W.T sees becomes better."""
    formats = ["int4"] if method != "ldlq" else ["int4", "nf4", "trellis2"]
    for format in formats:
        options = {"rotate": True, "seed": 3}
        plain = qkernels.quantize_weight(WEIGHT, format, ranges="mse", **options)
        got = qkernels.quantize_weight(WEIGHT, format, method=method, calibration=SEEN, **options)
        assert got.seed == 3 and output_error(got) < 0.85 * output_error(plain)


@pytest.mark.parametrize("method", ["gptq", "ldlq", "adaround"])
def test_rotated_with_an_outlier_among_the_inputs(method, monkeypatch):
    """A column 10,000 times as large as the others leaves the moments of rotated inputs exact, symmetric, positive."""
    x = cases.floats(8, (500, 96))
    x[:, 5] *= np.float32(1e4)
    w, moments = WEIGHT[:, :96], x.astype(np.float64).T @ x / 500
    rotated = rotated_moments(moments, 3)
    assert_same(rotated, rotated.T)
    np.testing.assert_allclose(np.linalg.eigvalsh(rotated), np.linalg.eigvalsh(moments), rtol=1e-7)
    plain = qkernels.quantize_weight(w, "int4", rotate=True, seed=3, ranges="mse")
    got = qkernels.quantize_weight(w, "int4", rotate=True, seed=3, method=method, calibration=x)
    assert output_error(got, w, x) < 0.5 * output_error(plain, w, x)


def test_inputs_serve_as_calibration():
    for method in CALIBRATED:
        got, want = (qkernels.quantize_weight(WEIGHT, "int4", method=method, calibration=calibration)
                     for calibration in (INPUTS.reshape(3, 100, K), SEEN))
        assert_same(got.dequantize(), want.dequantize())
    for method in ("rtn", "hqq"):
        got, want = (qkernels.quantize_weight(WEIGHT, "int4", method=method, calibration=calibration)
                     for calibration in (SEEN, None))
        assert_same(got.dequantize(), want.dequantize())


def test_methods_that_name_ranges():
    for name in ("minmax", "mse"):
        assert_same(qkernels.quantize_weight(WEIGHT, "int4", method=name).dequantize(),
                    qkernels.quantize_weight(WEIGHT, "int4", ranges=name).dequantize())
    want = qkernels.quantize_weight(WEIGHT, "ternary", ranges="absmean").dequantize()
    assert_same(qkernels.quantize_weight(WEIGHT, "ternary", method="absmean").dequantize(), want)


def test_awq_scales_inputs(isa):
    """Without quantization nothing would change; the weight that is packed is w over the scales, rounded to nearest."""
    x = INPUTS.copy()
    x[:, 7] *= 100  # so that a scale other than 1 is best
    seen, shape = InputStatistics(K).observe(x), {"group_size": 32, "symmetric": False}
    got = qkernels.quantize_weight(WEIGHT, "int4", method="awq", calibration=seen, **shape)
    scales = got.input_scales
    assert scales.dtype == np.float32 and scales.shape == (K,) and len(set(scales.tolist())) > 50
    assert not scales.flags.writeable and "inputs scaled" in repr(got)
    np.testing.assert_allclose((x * scales) @ (WEIGHT / scales).T, x @ WEIGHT.T, rtol=1e-4, atol=1e-3)
    plain = qkernels.quantize_weight(WEIGHT / scales, "int4", ranges="mse", **shape)
    assert got.nbytes == plain.nbytes + 4 * K
    for options in ({}, {"activations": "float32", "activation": "relu"}):
        assert_same(qkernels.linear(x, got, **options), qkernels.linear(x * scales, plain, **options))
    assert_same(got.dequantize(), plain.dequantize() * scales)
    rounded = qkernels.quantize_weight(WEIGHT, "int4", ranges="mse", **shape)
    assert output_error(got, x=x) < 0.9 * output_error(rounded, x=x)


def test_awq_searches_twenty_powers():
    """Of scales |x|**-e for e = 0, 1/20, ... 19/20, normalized, those of the least output error."""
    x = INPUTS.copy()
    x[:, 7] *= 100
    seen = InputStatistics(K).observe(x)
    got = qkernels.quantize_weight(WEIGHT, "int4", group_size=32, method="awq", calibration=seen)
    errors = []
    for exponent in np.arange(20) / 20:
        s = np.maximum(seen.mean_abs, 1e-4) ** -exponent
        s = (s / np.sqrt(s.max() * s.min())).astype(np.float32)
        scaled = qkernels.quantize_weight(WEIGHT / s, "int4", group_size=32, ranges="mse").dequantize()
        error = scaled.astype(np.float64) * s - WEIGHT
        errors.append((np.trace(error @ seen.hessian @ error.T), s))
    least, scales = min(errors, key=lambda pair: pair[0])
    assert least < 0.9 * errors[0][0]
    assert_same(got.input_scales, scales)


@pytest.mark.parametrize("format", ["int4", "nf4", "ternary"])
def test_awq_passes_over_what_overflows(format):
    """Weights that can be quantized can be by AWQ, too, whatever scales it tries."""
    x = INPUTS.copy()
    x[:, 7] *= np.float32(2.0**40)
    for scale_dtype, size in [("float16", 2e4), ("float32", 3e38)]:
        w = WEIGHT / np.abs(WEIGHT).max() * np.float32(size)
        options = {"calibration": x, "scale_dtype": scale_dtype}
        assert np.isfinite(qkernels.quantize_weight(w, format, method="awq", **options).dequantize()).all()
    raises(ValueError, "scale_dtype", qkernels.quantize_weight, w, format, method="awq", calibration=x)


@pytest.mark.parametrize("method, format", PAIRS)
def test_empty_and_zero_weights(method, format):
    for (n, k), group_size in [((0, 64), 32), ((3, 0), None), ((0, 0), None), ((3, 64), 32)]:
        w = np.zeros((n, k), np.float32)
        got = qkernels.quantize_weight(w, format, group_size=group_size, method=method,
                                       calibration=np.ones((2, k), np.float32))
        assert got.shape == (n, k) and np.abs(got.dequantize()).max(initial=0) < 1e-5


def test_combinations_that_make_no_sense():
    for method, takers in TAKERS.items():
        for format in FORMATS.keys() - set(takers):
            text = raises(ValueError, "method", qkernels.quantize_weight, WEIGHT, format, method=method,
                          calibration=SEEN)
            assert format in text and takers[0] in text
    raises(ValueError, "method", qkernels.quantize_weight, WEIGHT, method="awq", rotate=True, calibration=SEEN)
    raises(ValueError, "ranges", qkernels.quantize_weight, WEIGHT, method="hqq", ranges="mse")
    raises(ValueError, "ranges", qkernels.quantize_weight, WEIGHT, method="mse", ranges="mse")
    raises(ValueError, "ranges", qkernels.quantize_weight, WEIGHT, ranges="absmean")


def test_bad_calibration():
    def bad(error, calibration, method="gptq"):
        raises(error, "calibration", qkernels.quantize_weight, WEIGHT, "int4", method=method, calibration=calibration)

    for method in CALIBRATED:
        bad(ValueError, None, method)
    bad(ValueError, InputStatistics(K))  # has seen nothing
    bad(ValueError, InputStatistics(K + 1).observe(np.ones((1, K + 1), np.float32)))
    for wrong in (INPUTS[:, :-1], INPUTS[:0], np.float32(1), *(INPUTS * np.float32(size) for size in (np.nan, 1e20))):
        bad(ValueError, wrong)
    for wrong in (INPUTS.astype(np.float64), "x", SEEN.hessian, object()):
        bad(TypeError, wrong)


def test_the_oracle_reproduces_hqq():
    got = qkernels.quantize_weight(WEIGHT, "int4", group_size=32, symmetric=False, method="hqq")
    want = hqq.quantize_hqq(WEIGHT, 4, 32)
    for array, expected in zip(got.packed.unpack(), (want.codes, want.scales, want.zero_points)):
        assert_same(array, expected)
