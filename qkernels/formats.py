"""The formats of quantized weights, a record each."""

from typing import NamedTuple


class WeightFormat(NamedTuple):
    """Codes 0 to 2**bits - 1, evenly spaced: ``scale * (code - zero point)``.

    Attributes
    ----------
    name : str
        As `quantize_weight` takes it.
    bits : int
        Of a code.
    """

    name: str
    bits: int

    @property
    def zero(self):
        """The code of 0.0 in a symmetric weight. The levels around it are those of the signed type of that size:
        -127 to 127, -7 to 7, -1 to 1 by default."""
        return 2 ** (self.bits - 1)

    @property
    def qtype(self):
        """The quantized type of the codes."""
        return f"uint{self.bits}"


FORMATS = {
    record.name: record for record in (WeightFormat("int8", 8), WeightFormat("int4", 4), WeightFormat("int2", 2))
}
PLANNED = ("nf4", "codebook4", "log4", "binary", "ternary", "trellis2", "trellis3", "trellis4")


def find(name):
    """The record of a format argument."""
    if not isinstance(name, str) or name not in (*FORMATS, *PLANNED):
        raise ValueError(f"format: got {name!r}, takes one of {', '.join(FORMATS)}")
    if name in PLANNED:
        raise NotImplementedError(f"format: {name!r} is not implemented yet, takes one of {', '.join(FORMATS)}")
    return FORMATS[name]
