"""AWQ: inputs are divided, and the columns of the weight multiplied, by powers of the inputs' size, so that what large
inputs meet is quantized more finely (J. Lin et al., "AWQ: Activation-aware weight quantization", 2023,
arXiv:2306.00978)."""

import numpy as np

from .progress import progress
from .rounding import output_error

EXPONENTS = np.arange(20) / 20  # of the published search
SMALLEST = 1e-4  # mean |x| that counts, as published


def search(w, mean_abs, hessian, quantized):
    """What x is multiplied with, float32 [K], for the least output error of those tried; 1 everywhere is among them.

    quantized: from a weight to the float32 values that its quantization has.
    """
    size = np.maximum(mean_abs, SMALLEST)
    best, least = None, np.inf
    for exponent in progress(EXPONENTS, len(EXPONENTS), "awq", "scale"):
        scales = size**-exponent
        if scales.size:
            scales /= np.sqrt(scales.max() * scales.min())
        scales = scales.astype(np.float32)
        try:
            with np.errstate(over="ignore"):
                error = output_error(quantized(w / scales).astype(np.float64) * scales - w, hessian)
        except ValueError:  # a scale of the quotient overflows
            if exponent == 0:
                raise
            continue
        if best is None or error < least:
            best, least = scales, error
    return best
