"""Product of matrices of signs, bits packed along k: bit 1 is +1, bit 0 is -1."""

import numpy as np

from .packing import unpack


def binary_gemm(a_bits, b_bits, k=None):
    """acc[m, n] = sum_k a[m, k] * b[n, k]; a_bits [..., M, bytes], b_bits [N, bytes], bits past k are ignored."""
    if k is None:
        k = 8 * a_bits.shape[-1]
    a = 2 * unpack(a_bits, 1, k, signed=False).astype(np.int32) - 1
    b = 2 * unpack(b_bits, 1, k, signed=False).astype(np.int32) - 1
    return np.matmul(a, b.T)
