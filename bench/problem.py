"""What every problem is: the inputs of a product, the same in each process, and the check of its result."""

import numpy as np

CHECKED_COLUMNS = 256  # all rows of so many columns are compared with NumPy


class WrongResult(Exception):
    """A result is not what NumPy computes."""


class Problem:
    """A [m, k] times B [k, n] for one of `products`; what a contender does not ask for is not made.

    A subclass has the inputs, the bytes of B, `b_bytes`, and the check of checked columns, `wrong`.
    """

    products = {}  # name: what is computed from what
    a_bits = None  # of activations that come as integers

    def __init__(self, product, shape):
        self.product = product
        self.m, self.n, self.k = shape

    @classmethod
    def posed(cls, product, shape, a_bits):
        """The problems to try in turn with a peer that may be given activations of `a_bits` bits."""
        yield cls(product, shape)

    @property
    def operations(self):
        """Multiplies and adds."""
        return 2 * self.m * self.n * self.k

    def check(self, result):
        """Compare a result with NumPy's; its dtype says what it stands for."""
        columns = np.unique(np.linspace(0, self.n - 1, min(self.n, CHECKED_COLUMNS)).astype(int))
        if result.shape != (self.m, self.n):
            raise WrongResult(f"shape {result.shape}")
        wrong = self.wrong(result[:, columns], columns)
        if wrong.any():
            raise WrongResult(f"{100 * wrong.mean():.3g} % of the elements differ from NumPy's")
