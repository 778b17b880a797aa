"""The size of a weight: that of its state, found without unpacking it, whatever the panels of the processor are."""

import cases
import numpy as np
import pytest
from file_cases import with_inputs
from weight_cases import KINDS, packed, weight

import qkernels
from qkernels.demo_linears import Int8Linear
from qkernels.static import StaticLinear


def size_of_state(qw):
    return sum(array.nbytes for array in qw.to_state().values())


@pytest.mark.parametrize("n, k", [(19, 300), (70, 65), (1, 1), (0, 40), (5, 0), (0, 0)])
def test_every_format_and_option(isa, n, k):
    for i, kind in enumerate(KINDS):
        w, one_row = weight(i, n, k, *kind), packed(weight(i, 1, 32, *kind))
        for others in ({}, {"seed": 2**64 - 1}, {"input_scales": np.ones(k, np.float32)}):
            qw = with_inputs(w, **others)
            assert qw.nbytes == size_of_state(qw), (kind, others)
            assert qw.bits_per_weight == 8 * qw.nbytes / max(n * k, 1)
            assert qw.packed_nbytes == qw.packed.memory.nbytes
        assert one_row.nbytes_of((n, k)) == packed(w).nbytes, kind


@pytest.mark.parametrize("options", [
    {"format": "int8"}, {"format": "int4", "group_size": 32, "symmetric": False, "scale_dtype": "float32"},
    {"format": "codebook4", "codebook": "row"}, {"format": "ternary", "rotate": True},
    {"format": "trellis2", "window": 12}], ids=lambda options: options["format"])  # fmt: skip
def test_the_same_on_every_isa(isa, options):
    """These are numbers of NumPy's, not of a layout."""
    w = cases.floats(1, (33, 100))
    qw = qkernels.quantize_weight(w, **options)
    codes = {"int8": 100, "int4": 50, "codebook4": 50, "ternary": 25, "trellis2": 32}[options["format"]]
    parameters = {"int4": 4 * (4 + 1), "codebook4": 2 + 16}.get(options["format"], 2)
    integers = 4 + ("window" in options) + ("rotate" in options)
    assert qw.nbytes == 33 * (codes + parameters) + 8 * integers + 4 * len(options["format"])


def test_stacks(isa):
    one, two = (packed(weight(seed, 19, 65, "int4", 32, False)) for seed in (1, 2))
    stack = qkernels.QuantizedWeightStack([one, two])
    assert stack.nbytes == size_of_state(stack) < one.nbytes + two.nbytes
    assert stack.packed_nbytes == one.packed_nbytes + two.packed_nbytes


def test_other_layers_of_the_demo(isa):
    w, bias = cases.floats(1, (33, 100)), np.zeros(33, np.float32)
    x = qkernels.choose_qparams(np.float32([0, 1]), "uint8", symmetric=False)
    assert Int8Linear.quantized(w, bias).nbytes == 33 * 100 + 4 * 33
    assert StaticLinear(w, bias, input=x).nbytes == 33 * 100 + 4 * 33 + 4 * 33
