"""Freezes model files as machines of two kinds write them, with the products of their entries, beside this file.

Run it only when the version of files changes: `python tests/golden/make_files.py`. Each file holds the same model,
packed for other kernels; "x" and "a" are what its weights, and its packed right-hand sides, are multiplied with, and
"product of NAME" what comes out.
"""

import pathlib
import sys

import numpy as np

FOLDER = pathlib.Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parent.parent)]

import cases  # noqa: E402
import file_cases  # noqa: E402
from weight_cases import packed, weight  # noqa: E402

import qkernels  # noqa: E402
from qkernels import _core  # noqa: E402

K = 70
LAYOUTS = {name: (_core.weight_layouts()[name], _core.b_layouts()[name]) for name in ("avx2", "neon_dotprod")}


def product(value, x, a):
    """Of a weight or a packed right-hand side."""
    return qkernels.linear(x, value) if isinstance(value, qkernels.QuantizedWeight) else qkernels.int8_gemm(
        a, value, 0.25, a_zero_point=7)


def model():
    made = {
        "int8": packed(weight(1, 5, K, "int8", 32, False, "float32")),
        "int4": packed(weight(2, 18, K, "int4", 32)),
        "by row": packed(weight(3, 17, K, "codebook4 by row", 32)),
        "signs": packed(weight(4, 9, K, "binary")),
        "fast": packed(weight(5, 4, K, "trellis3", 32)),
        "fine": packed(weight(6, 4, K, "trellis2 12")),
        "rotated": file_cases.with_inputs(weight(7, 6, K, "int2", None, False), seed=2**64 - 1),
        "scaled": file_cases.with_inputs(weight(8, 6, K, "ternary"), input_scales=cases.scales(9, (K,), 1.0)),
        "b": qkernels.pack_b(cases.bytes8(10, (K, 13), np.uint8), b_zero_point=cases.ints(11, (13,), 0, 255)),
    }
    x, a = cases.floats(12, (2, K)), cases.bytes8(13, (2, K), np.uint8)
    products = {f"product of {name}": product(value, x, a) for name, value in made.items()}
    return made | {"x": x, "a": a, "seen": file_cases.statistics(3)} | products


def stacks():
    """Of entries that came later, in a file of their own."""
    made = {"experts": file_cases.stack(14, 3, 6, K, "int4", 32), "some scaled": file_cases.some_scaled()}
    x = cases.floats(20, (2, K))
    products = {f"product of {name}": np.stack([qkernels.linear(x[:, : stack.shape[2]], one) for one in stack])
                for name, stack in made.items()}
    return made | {"x": x} | products


if __name__ == "__main__":
    file_cases.save_foreign(FOLDER / "stacks.safetensors", stacks(), *LAYOUTS["neon_dotprod"])
    for name, layouts in LAYOUTS.items():
        file_cases.save_foreign(FOLDER / f"{name}.safetensors", model(), *layouts)
