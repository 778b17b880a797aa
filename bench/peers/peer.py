"""What a peer is."""

import numpy as np


class Peer:
    """A library, or one of its ways, to compute products; lives in a process of its own.

    A subclass has a method for each product of `suites.PROBLEMS` that it offers, named like it with _ for -. The method
    takes a `Problem`, prepares whatever may be prepared once, and returns a function without arguments that computes
    the product and returns it. Its module may be imported where the library is missing.
    """

    name = None
    requires = ()  # packages, as pip and import name them
    is_rival = True  # counts when the best rival is sought
    a_bits = (8, 7)  # of integer activations: the first that give right results are timed

    def __init__(self, threads):
        self.threads = threads

    @classmethod
    def offers(cls, product):
        return hasattr(cls, _method(product))

    def prepare(self, problem):
        """The function that computes a problem's product."""
        return getattr(self, _method(problem.product))(problem)

    def work(self, problem):
        """Operations of a call."""
        return problem.operations

    def check(self, problem, result):
        """Raise WrongResult unless the result is right."""
        problem.check(np.asarray(result))


def _method(product):
    return product.replace("-", "_")
