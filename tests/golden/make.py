"""Freezes the oracle: writes inputs and outputs of every operation into *.npz beside this file.

Run it only when the contract changes: `python tests/golden/make.py`. Each file has two members:
`index`, JSON text (function, plain options, and where its arrays are, for each named case), and
`data`, the bytes of all arrays, each stored once. `load` reads them back.
"""

import json
import pathlib
import sys

import numpy as np

FOLDER = pathlib.Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parent.parent)]

import cases  # noqa: E402

from qkernels import ref  # noqa: E402

DTYPES = ["int8", "uint8", "int4", "uint4", "int2", "uint2"]
STATE_ENTRIES = ("codes", "scales", "zero_points", "levels", "format", "group_size")


def outputs(result):
    """The arrays in what a function returned."""
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(part) for part in parts if isinstance(part, (np.ndarray, np.generic))]


def affine():
    edges = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, -0.0, 3e38, -3e38, 1e-45])
    rows = cases.floats(1, (4, 37), 2.0)
    for i, dtype in enumerate(DTYPES):
        unsigned = dtype[0] == "u"
        for place, where in [("tensor", {}), ("axis", {"axis": 0}), ("group", {"group_size": 16})]:
            for symmetric in (True, False):
                choice = {"dtype": dtype, "symmetric": symmetric, **where}
                name = f"{dtype}-{place}-{'symmetric' if symmetric else 'asymmetric'}"
                yield f"choose-{name}", "choose_qparams", {"x": rows}, choice
                if "group_size" not in where:
                    yield f"dynamic-{name}", "dynamic_quantize", {"x": rows}, choice
            got = ref.choose_qparams(rows, dtype, symmetric=False, **where)
            values = {"x": rows, "scale": got.scale, "zero_point": got.zero_point}
            options = {"dtype": dtype, **where}
            yield f"quantize-{dtype}-{place}", "quantize", values, options
            yield f"fake-{dtype}-{place}", "fake_quantize", values, options
            q = ref.quantize(rows, got.scale, got.zero_point, dtype=dtype, **where)
            values = {"q": q, "scale": got.scale, "zero_point": got.zero_point}
            yield f"dequantize-{dtype}-{place}", "dequantize", values, options
        values = {"x": np.append(edges, np.float32([np.inf, -np.inf])), "scale": np.float32(1)}
        values["zero_point"] = np.uint8(i % 2 + 1) if unsigned else np.int8(-1)
        yield f"edges-{dtype}", "quantize", values, {"dtype": dtype}
        yield f"full-{dtype}", "choose_qparams", {"x": rows}, {"dtype": dtype, "full_range": True}


def packing():
    for bits in (1, 2, 4):
        for n in (1, 8, 33):
            for order in ("low_first", "high_first"):
                q = cases.ints(n, (2, n), 0, 2**bits - 1, np.uint8)
                s = cases.ints(n, (2, n), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, np.int8)
                name, options = f"{bits}-{n}-{order}", {"bits": bits, "order": order}
                yield f"pack-u-{name}", "pack", {"q": q}, options
                yield f"pack-s-{name}", "pack", {"q": s}, options
                for signed in (True, False):
                    p, more = {"p": ref.pack(q, bits, order=order)}, {"length": n, "signed": signed}
                    yield f"unpack-{signed}-{name}", "unpack", p, {**options, **more}


def hadamard():
    for k in (1, 5, 8, 24, 384):
        for seed in (None, 0, 2**63 + 5):
            for inverse in (False, True):
                options = {"seed": seed, "inverse": inverse}
                name = f"{k}-{seed}-{'back' if inverse else 'there'}"
                yield name, "hadamard", {"x": cases.floats(k, (2, k), 3.0)}, options


def gemm():
    for i, (left, right) in enumerate(cases.SIGNS):
        for m, n, k in [(1, 33, 40), (7, 17, 65), (3, 5, 0)]:
            a, b = cases.bytes8(i, (m, k), left), cases.bytes8(i + 9, (k, n), right)
            ab = {"a_q": a, "b_q": b}
            zeros = {"a_zero_point": cases.bytes8(i + 1, (m,), left)}
            zeros["b_zero_point"] = cases.bytes8(i + 2, (n,), right)
            ints = {"bias": cases.ints(i, (n,), -3000, 3000, np.int32)}
            real = {"bias": cases.floats(i, (n,), 9.0)}
            by_channel = {"scales": cases.scales(i, (n,), 2e-4)}
            by_row = {**by_channel, "row_scales": cases.scales(i + 3, (m,), 3.0)}
            eight = {"out_scale": 0.0625, "out_zero_point": 5, "out_dtype": "int8"}
            other = {"out_scale": 0.05, "out_zero_point": 99, "out_dtype": "uint8"}
            fixed = {"requant": "fixed"}
            name = f"{np.dtype(left)}-{np.dtype(right)}-{m}x{n}x{k}"
            for what, values, options in [
                ("int32", ab, {}),
                ("int32-all", {**ab, **zeros, **ints}, {}),
                ("float32", {**ab, **zeros, **by_channel}, {}),
                ("float32-all", {**ab, **zeros, **by_row, **real}, {"activation": "relu"}),
                ("int8", {**ab, **zeros, **by_channel, **ints}, eight),
                ("uint8-all", {**ab, **by_row, **real}, {**other, "activation": "relu6"}),
                ("int8-fixed", {**ab, **zeros, **by_channel, **ints}, {**eight, **fixed}),
                (
                    "uint8-fixed",
                    {**ab, **by_channel},
                    {**other, **fixed, "activation": [-1.0, 3.5]},
                ),
            ]:
                yield f"{name}-{what}", "int8_gemm", values, options


def requant():
    """The accumulator is the bias: sizes of every order of magnitude, ties, int32 extremes."""
    acc = np.concatenate([cases.ints(n, (9,), -(4**n), 4**n, np.int32) for n in range(1, 16)])
    acc = np.append(acc, np.int32([0, 1, -1, 2, -2, 3, -3, 5, -5, 2**31 - 1, -(2**31) + 1]))
    acc = acc.astype(np.int32)
    values = {
        "a_q": np.zeros((1, 0), np.int8),
        "b_q": np.zeros((0, acc.size), np.int8),
        "bias": acc,
    }
    for form in ("float", "fixed"):
        for dtype, zero in (("int8", -4), ("uint8", 130)):
            for exponent in (-30, -20, -10, -3, -1, 0, 1, 9, 20):
                options = {"out_dtype": dtype, "out_zero_point": zero, "requant": form}
                for j, size in enumerate((1.0, 0.7)):
                    more = {**values, "scales": np.float32(size * 2.0**exponent)}
                    name = f"{form}-{dtype}-{exponent}-{j}"
                    yield name, "int8_gemm", more, {**options, "out_scale": 1.0}


def weights():
    """Weights as quantize_weight makes them, and products with weights as states hold them."""
    u = cases.floats(1, (17, 100), 0.3)
    w = u * u * u  # and not a power, which differs by processor
    for format, bits in (("int8", 8), ("int4", 4), ("int2", 2)):
        for group_size, symmetric in [(None, True), (32, True), (32, False), (64, False)]:
            name = f"{format}-{group_size}-{'symmetric' if symmetric else 'asymmetric'}"
            choice = {"format": format, "group_size": group_size, "symmetric": symmetric}
            for method in ("minmax", "mse"):
                yield f"quantize-{name}-{method}", "quantize_weight", {"w": w}, {**choice, "method": method}
            scale_dtype = "float16" if group_size else "float32"
            got = ref.quantize_weight(w, **choice, scale_dtype=scale_dtype)
            codes = got.codes if bits == 8 else ref.pack(got.codes, bits)
            state = {"codes": codes, "scales": got.scales if group_size else got.scales[:, 0]}
            if not symmetric:
                state["zero_points"] = got.zero_points
            for activations, activation_scales in [("int8", "row"), ("int8", "group"), ("float32", "row")]:
                values = {**state, "x": cases.floats(2, (3, 100), 5.0), "bias": cases.floats(3, (17,))}
                options = {"format": format, "group_size": group_size or 0, "activations": activations}
                options |= {"activation_scales": activation_scales, "activation": "relu" if symmetric else None}
                yield f"linear-{name}-{activations}-{activation_scales}", "linear", values, options


def formats():
    """Formats whose levels are not evenly spaced, likewise; tables are given, not trained."""
    u = cases.floats(1, (9, 100), 0.3)
    w = u * u * u
    table = np.sort(cases.bytes8(4, (9, 16), np.int8), axis=1)
    methods = {"nf4": ("minmax", "mse"), "log4": ("minmax", "mse"), "binary": ("mse",), "ternary": ("mse", "absmean")}
    for format, bits in ref.formats.BITS.items():
        for group_size, scale_dtype in [(None, "float32"), (32, "float16")]:
            choice = {"format": format, "group_size": group_size, "scale_dtype": scale_dtype}
            for method in methods.get(format, ()):
                options = {**choice, "method": method}
                yield f"quantize-{format}-{group_size}-{method}", "quantize_weight", {"w": w}, options
            tables = {"levels": table if group_size else table[0]} if format == "codebook4" else {}
            got = ref.quantize_weight(w, **choice, table=tables.get("levels"))
            state = {"codes": ref.pack(got.codes, bits), **tables}
            state["scales"] = got.scales if group_size else got.scales[:, 0]
            for activations in ("int8", "float32"):
                values = {**state, "x": cases.floats(2, (3, 100), 5.0), "bias": cases.floats(3, (9,))}
                options = {"format": format, "group_size": group_size or 0, "activations": activations}
                yield f"linear-{format}-{group_size}-{activations}", "linear", values, options


def weight_of(module, x, codes, scales, format, group_size, zero_points=None, levels=None):
    """The weight that the entries of a state describe."""
    n, k = len(codes), x.shape[-1]
    if module is ref and format in ref.formats.BITS:
        plain = ref.unpack(codes, ref.formats.BITS[format], k, signed=False)
        return ref.weight_of_codes(format, plain, scales.reshape(n, -1), group_size or None, levels)
    if module is ref:
        bits = int(format.removeprefix("int"))
        plain = codes if bits == 8 else ref.unpack(codes, bits, k, signed=False)
        return ref.Weight(plain, scales.reshape(n, -1), zero_points, bits, group_size or None)
    state = {"version": 1, "format": format, "shape": (n, k), "group_size": group_size}
    state |= {"codes": codes, "scales": scales}
    others = {"zero_points": zero_points, "levels": levels}
    state |= {name: entry for name, entry in others.items() if entry is not None}
    return module.QuantizedWeight.from_state(state)


def call(module, function, values, options):
    """Run one case on a module that offers the functions."""
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if function == "linear":
        parts = {k: v for k, v in {**values, **options}.items() if k in STATE_ENTRIES}
        weight = weight_of(module, values["x"], **parts)
        more = {k: v for k, v in options.items() if k not in STATE_ENTRIES}
        return outputs(module.linear(values["x"], weight, values["bias"], **more))
    result = getattr(module, function)(**values, **options)
    if function == "quantize_weight":
        result = result.packed.unpack() if module is not ref else result[:3]  # codes, scales, zero points
    return outputs(result)


def freeze(family):
    index, data, places = {}, bytearray(), {}

    def put(array):
        array = np.asarray(array)
        content = array.tobytes()
        if content not in places:
            places[content] = len(data)
            data.extend(content)
        return [array.dtype.name, list(array.shape), places[content]]

    for name, function, values, options in family():
        given = {key: put(value) for key, value in values.items()}
        index[name] = [
            function,
            options,
            given,
            [put(x) for x in call(ref, function, values, options)],
        ]
    text = np.frombuffer(json.dumps(index).encode(), np.uint8)
    path = FOLDER / f"{family.__name__}.npz"
    np.savez_compressed(path, index=text, data=np.frombuffer(bytes(data), np.uint8))
    return path, len(index)


def load(path):
    """The cases of one file: {name: (function, options, inputs, outputs)}."""
    with np.load(path) as file:
        index, data = json.loads(file["index"].tobytes()), file["data"].tobytes()

    def get(dtype, shape, offset):
        return np.frombuffer(data, dtype, cases.size_of(shape), offset).reshape(shape).copy()

    return {
        name: (function, options, {k: get(*v) for k, v in given.items()}, [get(*v) for v in got])
        for name, (function, options, given, got) in index.items()
    }


def main():
    for family in (affine, packing, hadamard, gemm, requant, weights, formats):
        path, count = freeze(family)
        print(f"{path.name}: {count} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
