"""The formats of quantized weights, a record each."""

from typing import NamedTuple

import numpy as np

from .codebook import NF4_LEVELS, Codebook


class WeightFormat(NamedTuple):
    """What codes of a weight mean: ``W = scale * level``, the level of a code being an integer.

    Attributes
    ----------
    name : str
        As `quantize_weight` takes it.
    bits : int
        Of a code.
    family : {"integer", "table", "binary", "ternary", "trellis"}
        Level of a code: code - zero point; entry of a table; -1 or 1; code - 2; that of a window of a stream of bits.
    coding : int
        The number of the packed form, as the C side counts them; with a trellis that of its fast code.
    ranges : tuple of str
        How scales may be chosen, the default first.
    levels : int8 ndarray or None
        The published table of a table format.
    """

    name: str
    bits: int
    family: str
    coding: int
    ranges: tuple
    levels: np.ndarray | None = None

    @property
    def zero(self):
        """The code of 0.0 in a symmetric weight. The levels around it are those of the signed type of that size:
        -127 to 127, -7 to 7, -1 to 1 by default."""
        return 2 ** (self.bits - 1)

    @property
    def qtype(self):
        """The quantized type of the codes."""
        return f"uint{self.bits}"


POWERS = Codebook.logarithmic(4).levels[8:]  # 1 to 64; a code's highest bit is the sign, the others count from 0.0 up
LEVELS = {
    "nf4": np.rint(NF4_LEVELS * np.float32(127)).astype(np.int8),
    "log4": np.array([0, *POWERS, 0, *-POWERS], np.int8),
}
for _table in LEVELS.values():
    _table.flags.writeable = False
FINE_CODING = 3  # what a fine trellis code adds to the number of the fast one
WINDOWS = range(12, 17)  # bits of a state of the fine trellis codes

FORMATS = {
    record.name: record for record in (
        WeightFormat("int8", 8, "integer", 0, ("minmax", "mse")),
        WeightFormat("int4", 4, "integer", 1, ("minmax", "mse")),
        WeightFormat("int2", 2, "integer", 2, ("minmax", "mse")),
        WeightFormat("nf4", 4, "table", 4, ("minmax", "mse"), LEVELS["nf4"]),
        WeightFormat("codebook4", 4, "table", 4, ("mse", "minmax")),
        WeightFormat("log4", 4, "table", 4, ("mse", "minmax"), LEVELS["log4"]),
        WeightFormat("binary", 1, "binary", 3, ("mse",)),
        WeightFormat("ternary", 2, "ternary", 2, ("mse", "absmean")),
        WeightFormat("trellis2", 2, "trellis", 5, ("mse",)),
        WeightFormat("trellis3", 3, "trellis", 6, ("mse",)),
        WeightFormat("trellis4", 4, "trellis", 7, ("mse",)),
    )
}  # fmt: skip


def find(name):
    """The record of a format argument."""
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(f"format: got {name!r}, takes one of {', '.join(FORMATS)}")
    return FORMATS[name]


def of_family(*families):
    """The names of the formats of these families."""
    return [record.name for record in FORMATS.values() if record.family in families]
