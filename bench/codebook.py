"""The suites codebook (float32 matrices times weights with unevenly spaced levels) and binary (signs times signs)."""

from functools import cached_property

import numpy as np

from qkernels import _core, formats, trellis

from .problem import Problem

GROUPS = {"nf4": 64, "codebook4": 64, **dict.fromkeys(("binary", "ternary", "trellis2", "trellis3", "trellis4"))}


class CodebookProblem(Problem):
    """x [m, k] for A, and for B the transpose of a weight [n, k] = scales * levels.

    The codes are random: encoding takes long, and speed does not depend on them.
    """

    products = {
        name: f"float32 in, quantized to int8 on the way, times {name} with "
              f"{'a scale a channel' if size is None else f'a scale for {size} weights'}, float32 out"
        for name, size in GROUPS.items()
    }

    def __init__(self, product, shape):
        super().__init__(product, shape)
        self.format = formats.find(product)
        self.group_size = GROUPS[product]
        self.groups = 1 if self.group_size is None else -(-self.k // self.group_size)

    @cached_property
    def x(self):
        return np.random.default_rng(0).standard_normal((self.m, self.k), np.float32)

    @cached_property
    def codes(self):
        """One a byte; of a trellis, bytes of its stream."""
        rng = np.random.default_rng(1)
        if self.format.family == "trellis":
            block = _core.weight_block(self.k, self.group_size)
            return rng.integers(0, 256, (self.n, -(-self.k // block) * block * self.format.bits // 8), dtype=np.uint8)
        low, count = (1, 3) if self.product == "ternary" else (0, 2**self.format.bits)
        return rng.integers(low, low + count, (self.n, self.k), dtype=np.uint8)

    @cached_property
    def scales(self):
        return (np.random.default_rng(2).uniform(0.5, 1.5, (self.n, self.groups)) / 64).astype(np.float16)

    @cached_property
    def table(self):
        """The levels of codebook4."""
        return np.sort(np.random.default_rng(3).permutation(np.arange(-127, 128, dtype=np.int8))[:16])

    def levels(self, rows):
        """The integers that rows of the codes mean."""
        codes = self.codes[rows]
        if self.format.family == "trellis":
            return trellis.decode(codes, self.format.bits, trellis.FAST_WINDOW, self.k, self.group_size)
        if self.product == "binary":
            return 2 * codes.view(np.int8) - 1
        if self.product == "ternary":
            return codes.view(np.int8) - 2
        return (self.table if self.product == "codebook4" else self.format.levels)[codes]

    def weight(self, rows=slice(None)):
        """Rows of the weight in real numbers, which float32 holds exactly."""
        scales = np.repeat(self.scales[rows].astype(np.float32), self.group_size or self.k, axis=1)[:, :self.k]
        return self.levels(rows).astype(np.float32) * scales

    @cached_property
    def w(self):
        """B in real numbers."""
        return self.weight().T

    @property
    def b_bytes(self):
        """Codes and float16 scales."""
        return self.n * (-(-self.k * self.format.bits // 8) + 2 * self.groups)

    def wrong(self, got, columns):
        real = self.x.astype(np.float64) @ self.weight(columns).T.astype(np.float64)
        return np.abs(got - real) > 0.1 * np.sqrt(np.mean(real**2))


class BinaryProblem(Problem):
    """A [m, k] and the transpose of B [n, k] hold +1 and -1."""

    products = {"binary-gemm": "bits in, 1 for +1 and 0 for -1, both sides packed before, exact int32 out"}

    @cached_property
    def a_s8(self):
        return self._signs(0, self.m)

    @cached_property
    def b_s8(self):
        """Transposed: [n, k]."""
        return self._signs(1, self.n)

    @cached_property
    def x(self):
        return self.a_s8.astype(np.float32)

    @cached_property
    def w(self):
        return self.b_s8.T.astype(np.float32)

    def _signs(self, seed, rows):
        return 2 * np.random.default_rng(seed).integers(0, 2, (rows, self.k), dtype=np.int8) - 1

    @property
    def b_bytes(self):
        return self.n * -(-self.k // 8)

    def wrong(self, got, columns):
        return got != self.x @ self.w[:, columns]  # exact in float32
