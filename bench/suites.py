"""What is measured together."""

from typing import NamedTuple

from .codebook import BinaryProblem, CodebookProblem
from .int8 import Int8Problem
from .lowbit import LowBitProblem
from .problem import Problem


class Suite(NamedTuple):
    """A kind of problem, and what is measured of it unless the command line says otherwise."""

    problem: type[Problem]
    products: list[str]
    shapes: list[str]  # files


SUITES = {
    "int8": Suite(Int8Problem, ["int32"], ["small", "squares"]),
    "lowbit": Suite(LowBitProblem, list(LowBitProblem.products), ["llm"]),
    "codebook": Suite(CodebookProblem, list(CodebookProblem.products), ["llm"]),
    "binary": Suite(BinaryProblem, list(BinaryProblem.products), ["squares"]),
}
PROBLEMS = {product: suite.problem for suite in SUITES.values() for product in suite.problem.products}
