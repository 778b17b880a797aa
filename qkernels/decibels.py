"""Decibels of ratios, in decimal arithmetic: `math.log10` and ``**`` differ in the last bit from processor to processor."""

from decimal import Context, Decimal

DIGITS = Context(prec=25)  # more than float64 holds, which results are rounded to


def decibels(ratio):
    """``10 log10(ratio)`` of a ratio > 0, finite.

    Examples
    --------
    >>> from qkernels.decibels import decibels
    >>> decibels(1000.0), round(decibels(0.5), 4)
    (30.0, -3.0103)
    """
    return float(DIGITS.multiply(10, DIGITS.log10(Decimal(ratio))))


def ratio(decibels):
    """The inverse of `decibels`.

    Examples
    --------
    >>> from qkernels.decibels import ratio
    >>> ratio(30.0), round(ratio(-3.0103), 4)
    (1000.0, 0.5)
    """
    return float(DIGITS.power(10, DIGITS.divide(Decimal(decibels), 10)))
