"""The suite int8: products of int8 matrices."""

from functools import cached_property

import numpy as np

from .problem import Problem

OUT_ZERO_POINT = 128  # of 8-bit results that are unsigned


class Int8Problem(Problem):
    """real = a_scale * (a_u8 - a_zero_point) for A, and b_scales * b_s8 for B.

    With a_bits 7 instead of 8 the sum of two products fits int16: right, too, on kernels built on instructions that
    saturate there.
    """

    products = {
        "int32": "int8 in, B packed before where the library can, exact int32 out",
        "unpacked": "int8 in, B a plain matrix in each call, exact int32 out",
        "float32": "int8 in, float32 out with a scale a column",
        "int8": "int8 in and out, requantized with a multiplier a column",
        "fixed": "int8 in and out, requantized in TFLite's fixed-point arithmetic",
        "dynamic": "float32 in, quantized on the way with a scale for the matrix or for each row, float32 out",
    }

    def __init__(self, product, shape, a_bits=8):
        super().__init__(product, shape)
        self.a_bits = a_bits
        self.a_zero_point = 2 ** (a_bits - 1)
        self.a_scale = np.float32(1 / self.a_zero_point)
        self.out_scale = np.float32(np.sqrt(self.k) / 96)  # a standard deviation of 32 steps

    @classmethod
    def posed(cls, product, shape, a_bits):
        return (cls(product, shape, bits) for bits in a_bits)

    @cached_property
    def a_u8(self):
        return np.random.default_rng(0).integers(0, 2**self.a_bits, (self.m, self.k), dtype=np.uint8)

    @cached_property
    def b_s8(self):
        return np.random.default_rng(1).integers(-128, 128, (self.k, self.n), dtype=np.int8)

    @cached_property
    def b_scales(self):
        return np.random.default_rng(2).uniform(0.5 / 128, 1.5 / 128, self.n).astype(np.float32)

    @cached_property
    def a_s8(self):
        return (self.a_u8.astype(np.int16) - self.a_zero_point).astype(np.int8)

    @cached_property
    def x(self):
        """A in real numbers."""
        return self.a_s8 * self.a_scale

    @cached_property
    def w(self):
        """B in real numbers."""
        return self.b_s8 * self.b_scales

    @property
    def b_bytes(self):
        return self.k * self.n

    def wrong(self, got, columns):
        exact = self.a_s8.astype(np.float64) @ self.b_s8[:, columns].astype(np.float64)
        if got.dtype == np.int32:
            return got != exact
        real = exact * (np.float64(self.a_scale) * self.b_scales[columns])
        if got.dtype == np.float32:
            return np.abs(got - real) > (0.1 if self.product == "dynamic" else 1e-4) * real.std()
        if got.dtype == np.uint8:
            got = got.astype(np.int16) - OUT_ZERO_POINT
        steps = np.abs(got - np.clip(np.rint(real / self.out_scale), -128, 127))
        # Libraries round in different places: neighbors are right where they are rare.
        return steps > (1 if np.mean(steps > 0) < 0.01 else 0)
