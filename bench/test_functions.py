"""Times of every public function that computes, for day-to-day regressions: ``pytest bench``.

``pytest bench --benchmark-autosave``, and later ``--benchmark-compare``, show what a change did.
"""

import inspect
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import qkernels
from qkernels import qat

# They report or set, and compute nothing worth timing.
NO_WORK = {"cpu_info", "get_num_threads", "lsq_grad_factor", "num_threads", "set_num_threads"}

rng = np.random.default_rng(0)
x = rng.normal(size=(512, 1024)).astype(np.float32)
row_scales, column_scales = np.full(512, 0.03, np.float32), np.full(1024, 0.03, np.float32)
q = rng.integers(-127, 128, (512, 1024), dtype=np.int8)
q4 = rng.integers(-8, 8, (512, 1024), dtype=np.int8)
a = rng.integers(0, 256, (128, 384), dtype=np.uint8)
b = rng.integers(-128, 128, (384, 1536), dtype=np.int8)
sign_bits = np.ascontiguousarray(b.T).view(np.uint8)
packed_b = qkernels.pack_b(b)
tiny_a, tiny_b = a[:16, :16], qkernels.pack_b(b[:16, :16])
scales = np.full(1536, 0.01, np.float32)
weight = rng.normal(size=(1536, 384)).astype(np.float32)
weights = {name: qkernels.quantize_weight(weight, name, group_size=32) for name in ("int8", "int4", "int2")}
weight_by_rows = qkernels.quantize_weight(weight)
asymmetric_weight = qkernels.quantize_weight(weight, "int4", group_size=128, symmetric=False)
tokens = x[:128, :384]

gemm = partial(qkernels.int8_gemm, a, packed_b)
FOLDER = tempfile.TemporaryDirectory()
FILE, LAYER = Path(FOLDER.name) / "layer.safetensors", {"weight": asymmetric_weight, "bias": scales}
qkernels.save(FILE, LAYER)
CASES = {  # function: variant
    "choose_qparams: tensor": lambda: qkernels.choose_qparams(x),
    "choose_qparams: columns": lambda: qkernels.choose_qparams(x, axis=1),
    "choose_qparams: groups": lambda: qkernels.choose_qparams(x, "int4", group_size=32),
    "choose_qparams: percentile": lambda: qkernels.choose_qparams(x, method="percentile"),
    "choose_qparams: mse": lambda: qkernels.choose_qparams(x, method="mse"),
    "choose_qparams: entropy": lambda: qkernels.choose_qparams(x, method="entropy"),
    "quantize: tensor": lambda: qkernels.quantize(x, 0.03),
    "quantize: rows": lambda: qkernels.quantize(x, row_scales, axis=0),
    "dequantize: tensor": lambda: qkernels.dequantize(q, 0.03),
    "dequantize: rows": lambda: qkernels.dequantize(q, row_scales, axis=0),
    "fake_quantize: tensor": lambda: qkernels.fake_quantize(x, 0.03),
    "fake_quantize_backward: tensor": lambda: qat.fake_quantize_backward(x, x, 0.03),
    "learned_fake_quantize_backward: tensor": lambda: qat.learned_fake_quantize_backward(x, x, 0.03),
    "learned_fake_quantize_backward: rows": lambda: qat.learned_fake_quantize_backward(x, x, row_scales, axis=0),
    "learned_fake_quantize_backward: columns": lambda: qat.learned_fake_quantize_backward(x, x, column_scales, axis=1),
    "lsq_scale: rows": lambda: qat.lsq_scale(x, axis=0),
    "dynamic_quantize: tensor": lambda: qkernels.dynamic_quantize(x),
    "dynamic_quantize: rows": lambda: qkernels.dynamic_quantize(x, axis=0, dtype="int8", symmetric=True),
    "hadamard: powers of two": lambda: qkernels.hadamard(x, seed=1),
    "hadamard: blocks of 128": lambda: qkernels.hadamard(tokens, seed=1),
    "pack: 4 bits": lambda: qkernels.pack(q4, 4),
    "unpack: 4 bits": partial(qkernels.unpack, qkernels.pack(q4, 4), 4, 1024),
    "int8_gemm: 16x16x16": lambda: qkernels.int8_gemm(tiny_a, tiny_b),
    "int8_gemm: one row": lambda: qkernels.int8_gemm(a[:1], packed_b),
    "int8_gemm: int32": gemm,
    "int8_gemm: float32": partial(gemm, scales),
    "int8_gemm: int8": partial(gemm, scales, out_dtype=np.int8, out_scale=1.0),
    "int8_gemm: fixed": partial(gemm, scales, out_dtype=np.int8, out_scale=1.0, requant="fixed"),
    "int8_gemm: unpacked": lambda: qkernels.int8_gemm(a, b),
    "binary_gemm: 128x1536x3072": lambda: qkernels.binary_gemm(a, sign_bits),
    "pack_b: rows": lambda: qkernels.pack_b(b),
    "pack_b: transposed": lambda: qkernels.pack_b(b.T, transpose=True),
    "quantize_weight: int8": lambda: qkernels.quantize_weight(weight),
    "quantize_weight: int4, groups": lambda: qkernels.quantize_weight(weight, "int4", group_size=32),
    "quantize_weight: int4, mse": lambda: qkernels.quantize_weight(weight, "int4", group_size=32, method="mse"),
    "linear: int8": lambda: qkernels.linear(tokens, weight_by_rows),
    "linear: int8, groups": lambda: qkernels.linear(tokens, weights["int8"]),
    "linear: int4, groups": lambda: qkernels.linear(tokens, weights["int4"]),
    "linear: int4, asymmetric": lambda: qkernels.linear(tokens, asymmetric_weight),
    "linear: int4, scales by group": lambda: qkernels.linear(tokens, weights["int4"], activation_scales="group"),
    "linear: int4, float32": lambda: qkernels.linear(tokens, weights["int4"], activations="float32"),
    "linear: int4, one row": lambda: qkernels.linear(tokens[:1], weights["int4"]),
    "linear: int4, one row, float32": lambda: qkernels.linear(tokens[:1], weights["int4"], activations="float32"),
    "save: a layer": lambda: qkernels.save(FILE, LAYER),
    "load: a layer": lambda: qkernels.load(FILE)["weight"],
    "linear: int2, groups": lambda: qkernels.linear(tokens, weights["int2"]),
}


@pytest.mark.parametrize("case", CASES)
def test_speed(benchmark, case):
    benchmark(CASES[case])


def test_every_function_has_a_benchmark():
    names = [(module, name) for module in (qkernels, qat) for name in module.__all__]
    functions = {name for module, name in names if inspect.isroutine(getattr(module, name))}
    assert {case.partition(":")[0] for case in CASES} == functions - NO_WORK
