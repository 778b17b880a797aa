"""The suite lowbit: float32 matrices times weights in few bits."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from .problem import Problem


class Scheme(NamedTuple):
    """How a product stores its weight, and how its activations enter."""

    bits: int
    group_size: int | None = 32
    symmetric: bool = True
    activations: str = "int8"

    def __str__(self):
        scales = "a scale a channel" if self.group_size is None else f"a scale for {self.group_size} weights"
        zeros = "" if self.symmetric else " and a zero point"
        on_the_way = ", quantized to int8 on the way" if self.activations == "int8" else ""
        return f"float32 in{on_the_way}, times int{self.bits} with {scales}{zeros}, float32 out"


SCHEMES = {
    "int4": Scheme(4),
    "int4-float32": Scheme(4, activations="float32"),
    "int4-asymmetric": Scheme(4, 128, symmetric=False),
    "int8-grouped": Scheme(8),
    "int8-float32": Scheme(8, None, activations="float32"),
    "int2": Scheme(2),
}


class LowBitProblem(Problem):
    """x [m, k] for A, and for B the transpose of a weight [n, k] = scales * (codes - zero_points)."""

    products = {name: str(scheme) for name, scheme in SCHEMES.items()}

    def __init__(self, product, shape):
        super().__init__(product, shape)
        self.bits, self.group_size, self.symmetric, self.activations = SCHEMES[product]
        self.groups = 1 if self.group_size is None else -(-self.k // self.group_size)

    @cached_property
    def x(self):
        return np.random.default_rng(0).standard_normal((self.m, self.k), np.float32)

    @cached_property
    def codes(self):
        """One a byte; 2**(bits - 1) is 0.0 in a symmetric weight."""
        return np.random.default_rng(1).integers(0, 2**self.bits, (self.n, self.k), dtype=np.uint8)

    @cached_property
    def scales(self):
        return (np.random.default_rng(2).uniform(0.5, 1.5, (self.n, self.groups)) / 2**self.bits).astype(np.float16)

    @cached_property
    def zero_points(self):
        if self.symmetric:
            return None
        return np.random.default_rng(3).integers(0, 2**self.bits, (self.n, self.groups), dtype=np.uint8)

    def weight(self, rows=slice(None)):
        """Rows of the weight in real numbers, which float32 holds exactly."""
        size = self.group_size or self.k
        zeros = np.float32(2 ** (self.bits - 1)) if self.symmetric else self._by_weight(self.zero_points[rows], size)
        return (self.codes[rows] - zeros) * self._by_weight(self.scales[rows], size)

    @cached_property
    def w(self):
        """B in real numbers."""
        return self.weight().T

    def _by_weight(self, parameters, size):
        return np.repeat(parameters.astype(np.float32), size, axis=1)[:, :self.k]

    @property
    def b_bytes(self):
        """Codes, float16 scales, and a byte for each zero point."""
        return self.n * (-(-self.k * self.bits // 8) + self.groups * (2 if self.symmetric else 3))

    def wrong(self, got, columns):
        real = self.x.astype(np.float64) @ self.weight(columns).T.astype(np.float64)
        as_float32 = self.activations == "float32" and got.dtype == np.float32  # others round x, or the result
        return np.abs(got - real) > (1e-4 if as_float32 else 0.1) * np.sqrt(np.mean(real**2))
