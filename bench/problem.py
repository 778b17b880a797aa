"""The inputs of a product, the same in each process, and the check of its result."""

from functools import cached_property

import numpy as np

PRODUCTS = {
    "int32": "int8 in, B packed before where the library can, exact int32 out",
    "unpacked": "the same, and B is a plain matrix in each call",
    "float32": "int8 in, float32 out with a scale a column",
    "int8": "int8 in and out, requantized with a multiplier a column",
    "fixed": "the same in TFLite's fixed-point arithmetic",
    "dynamic": "float32 in, quantized on the way with a scale for the matrix or for each row, float32 out",
}
CHECKED_COLUMNS = 256  # all rows of so many columns are compared with NumPy
OUT_ZERO_POINT = 128  # of 8-bit results that are unsigned


class WrongResult(Exception):
    """A result is not what NumPy computes."""


class Problem:
    """A [m, k] times B [k, n]: real = a_scale * (a_u8 - a_zero_point), and b_scales * b_s8 for B.

    With a_bits 7 instead of 8 the sum of two products fits int16: right, too, on kernels built on instructions that
    saturate there.
    """

    def __init__(self, m, n, k, a_bits=8):
        rng = np.random.default_rng(0)
        self.m, self.n, self.k = m, n, k
        self.a_zero_point = 2 ** (a_bits - 1)
        self.a_scale = np.float32(1 / self.a_zero_point)
        self.a_u8 = rng.integers(0, 2**a_bits, (m, k), dtype=np.uint8)
        self.b_s8 = rng.integers(-128, 128, (k, n), dtype=np.int8)
        self.b_scales = rng.uniform(0.5 / 128, 1.5 / 128, n).astype(np.float32)
        self.out_scale = np.float32(np.sqrt(k) / 96)  # a standard deviation of 32 steps

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
    def operations(self):
        """Multiplies and adds."""
        return 2 * self.m * self.n * self.k

    def check(self, product, result):
        """Compare a result with NumPy's; its dtype says what it stands for."""
        columns = np.unique(np.linspace(0, self.n - 1, min(self.n, CHECKED_COLUMNS)).astype(int))
        exact = self.a_s8.astype(np.float64) @ self.b_s8[:, columns].astype(np.float64)
        real = exact * (np.float64(self.a_scale) * self.b_scales[columns])
        if result.shape != (self.m, self.n):
            raise WrongResult(f"shape {result.shape}")
        got = result[:, columns]
        if got.dtype == np.int32:
            wrong = got != exact
        elif got.dtype == np.float32:
            tolerance = (0.1 if product == "dynamic" else 1e-4) * real.std()
            wrong = np.abs(got - real) > tolerance
        else:
            if got.dtype == np.uint8:
                got = got.astype(np.int16) - OUT_ZERO_POINT
            steps = np.abs(got - np.clip(np.rint(real / self.out_scale), -128, 127))
            # Libraries round in different places: neighbors are right where they are rare.
            wrong = steps > (1 if np.mean(steps > 0) < 0.01 else 0)
        if wrong.any():
            raise WrongResult(f"{100 * wrong.mean():.3g} % of the elements differ from NumPy's")
