"""One number for int8_gemm, requantization, linear and ranges: the same bytes on every ISA and architecture.

The digests are frozen. The oracle reproduces them, and so must each kernel, on x86 and on Arm.
"""

import hashlib
import itertools

import cases
import numpy as np
import pytest
from weight_cases import FORMATS, KINDS, MODES, packed, weight

import qkernels
from qkernels import ref

SHAPES = [
    (1, 1, 1), (1, 16, 64), (1, 45, 131), (2, 17, 3), (5, 31, 63), (6, 32, 64), (7, 33, 65),
    (8, 16, 4), (13, 65, 70), (16, 48, 32), (3, 7, 0),
]  # fmt: skip

DIGESTS = {
    "int32": "9759888c7ec0dc4ef9a0cc6780434a9f8f05da5c39d661866d2abd5395e35abb",
    "float32": "da7f902f770803121d1f058bb5509ace46400242abe269b404c9ec96ed409d3b",
    "float": "f578dd5ed021bb3d71a79c246b574f3ad50da260eaaabcd24dff8269f857eae3",
    "fixed": "a3e927a00bbecb0974c4804ab07be6d40e0c98a7291399050798a933d6f61aa4",
    "linear": "feacca61471a7476195268b953205842cb52d8c5ceafda241c74c25452cd7f54",
    "levels": "229f53899894c74959f590fea3c6e9a3384996d84a11afd632de8637f81e07ba",
    "long": "c75d0acaac09fed5d73835b0fc0006c5ee380392ddd5898d8ef521c5cff3f18a",
    "sizes": "9956a9936a0ffc75733b6cbdfc0902082b6da8ddd34bc8083196908f0ba6b604",
    "ranges": "f760fe5a6f93056d7cb3993c90425270337c9f7485f7e610809c4eae19494ae7",
}


def zero_points(seed, m, n, left, right):
    return {
        "a_zero_point": cases.bytes8(seed, (m,), left),
        "b_zero_point": cases.bytes8(seed + 1, (n,), right),
    }


def calls(kind):
    """Arguments of each call of one digest."""
    for seed, ((m, n, k), (left, right)) in enumerate(itertools.product(SHAPES, cases.SIGNS)):
        a, b = cases.bytes8(seed, (m, k), left), cases.bytes8(seed + 500, (k, n), right)
        zeros = zero_points(seed, m, n, left, right)
        bias = cases.ints(seed, (n,), -5000, 5000, np.int32)
        scales = cases.scales(seed, (n,), 3e-4)
        if kind == "int32":
            yield (a, b), {}
            yield (a, b), {**zeros, "bias": bias}
            continue
        if kind == "float32":
            yield (a, b, scales), {**zeros, "bias": cases.floats(seed, (n,), 7.0)}
            yield (a, b, 1e-3), {"row_scales": cases.scales(seed, (m,), 2.0), "activation": "relu"}
            continue
        for dtype in ("int8", "uint8"):
            low, high = cases.LIMITS[np.dtype(dtype).type]
            options = {"out_dtype": dtype, "out_scale": 0.07, "requant": kind}
            options["out_zero_point"] = low + (high - low) * (seed % 5) // 4
            yield (a, b, scales), {**zeros, **options, "bias": bias}
            yield (a, b, scales), {**options, "activation": (-1.0, 4.0)}
            if kind == "float":
                rows = cases.scales(seed, (m,), 2.0)
                yield (
                    (a, b, 2e-4),
                    {**options, "row_scales": rows, "bias": cases.floats(seed, (n,))},
                )


def requantizations(kind):
    """Accumulators of every size, given as the bias of an empty product."""
    acc = np.concatenate([cases.ints(n, (40,), -(4**n), 4**n) for n in range(1, 16)])
    acc = np.append(acc, [2**31 - 1, -(2**31) + 1, 0, 2**24 + 1, 2**30]).astype(np.int32)
    a, b = np.zeros((1, 0), np.uint8), np.zeros((0, acc.size), np.int8)
    for exponent in range(-34, 28, 4):
        scales = cases.scales(exponent + 40, acc.shape, 2.0**exponent)
        for dtype, zero in (("int8", -9), ("uint8", 77)):
            options = {"out_dtype": dtype, "out_scale": 0.9, "requant": kind, "bias": acc}
            yield (a, b, scales), {**options, "out_zero_point": zero}


def long_sums():
    """K at and beyond the bound of int32."""
    for left, right in cases.SIGNS:
        for k in (33_025, 70_001, 131_075):
            a, b = cases.bytes8(1, (2, k), left), np.full((k, 3), cases.LIMITS[right][1], right)
            b[:, 1] = cases.bytes8(2, (k,), right)
            zeros = {"a_zero_point": cases.LIMITS[left][0], "b_zero_point": cases.LIMITS[right][0]}
            yield (a, b), zeros
            yield (a, b, np.float32([1e-4, 3e-3, 0.7])), zeros
            yield (a, b, 1e-4), {**zeros, "out_dtype": "int8", "out_scale": 999.0}


def case_set(kind):
    if kind == "long":
        return long_sums()
    if kind in ("float", "fixed"):
        return itertools.chain(calls(kind), requantizations(kind))
    return calls(kind)


def layers(module, kinds):
    """The results of linear, with a weight of each kind in each way."""
    for seed, kind in enumerate(kinds):
        for m, n, k in [(1, 19, 300), (7, 65, 100), (3, 5, 1)]:
            w = weight(seed, n, k, *kind)
            w = w if module is ref else packed(w)
            x, bias = cases.floats(seed, (m, k), 4.0), cases.floats(seed + 1, (n,))
            for mode in MODES:
                yield module.linear(x, w, bias, activation="relu" if seed % 2 else None, **mode)


def sizes(module):
    """linear where float32 overflows on the way, or nearly loses x: values and scales of every size, rotated or not."""
    w = weight(1, 19, 96, "int4", 32, True, "float32")
    transforms = {}, {"seed": 3}, {"input_scales": cases.scales(4, (96,))}
    x = np.stack([np.ldexp(cases.floats(2, (96,)), exponent) for exponent in range(-148, 128, 11)])
    for exponent, transform, mode in itertools.product(range(-120, 133, 36), transforms, MODES):
        scales = np.ldexp(w.scales, exponent)
        if module is ref:
            yield ref.linear(x, w._replace(scales=scales), **transform, **mode)
        else:
            yield qkernels.linear(x, qkernels.QuantizedWeight("int4", w.codes, scales, None, 32, **transform), **mode)


def ranges(module):
    """The scales and zero points that choose_qparams finds."""
    methods = "percentile", "mse", "entropy"
    for seed, (dtype, method) in enumerate(itertools.product(("int8", "uint4", "int2"), methods)):
        x = cases.floats(seed, (2, 777), 3.0) ** 3
        for where in ({"symmetric": False}, {"axis": 0})[: 1 if method == "entropy" else 2]:
            yield from map(np.asarray, module.choose_qparams(x, dtype, method=method, **where)[:2])


def results(module, kind):
    if kind == "ranges":
        return ranges(module)
    if kind == "sizes":
        return sizes(module)
    if kind in ("linear", "levels"):  # evenly spaced ones, and others
        return layers(module, [k for k in KINDS if (k[0] in FORMATS) == (kind == "linear")])
    return (module.int8_gemm(*args, **options) for args, options in case_set(kind))


def digest(module, kind):
    hashed = hashlib.sha256()
    for y in results(module, kind):
        hashed.update(f"{y.dtype.name}{y.shape}".encode())
        hashed.update(y.astype(y.dtype.newbyteorder("<")).tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("kind", DIGESTS)
def test_every_isa_gives_the_frozen_bytes(isa, kind):
    assert digest(qkernels, kind) == DIGESTS[kind]


@pytest.mark.any_isa
@pytest.mark.parametrize("kind", DIGESTS)
def test_the_oracle_gives_the_frozen_bytes(kind):
    assert digest(ref, kind) == DIGESTS[kind]


@pytest.mark.any_isa
def test_the_cases_differ_from_each_other():
    """A case set that saturates everywhere would prove little."""
    for kind in ("float", "fixed"):
        values = [ref.int8_gemm(*args, **options).ravel() for args, options in calls(kind)]
        together = np.concatenate([y.astype(np.int64) for y in values])
        inside = (together > -128) & (together != 0) & (together != 127) & (together < 255)
        assert inside.mean() > 0.3 and len(np.unique(together)) > 300
