"""The randomized Hadamard transform, with the order of operations that the kernels keep."""

import numpy as np

MASK = 2**64 - 1


def splitmix64(seed, i):
    """Output number i of the generator that starts at the state `seed`."""
    z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def signs(k, seed):
    """[k] of 1 and -1."""
    return np.float32([-1 if splitmix64(seed, i // 64) >> i % 64 & 1 else 1 for i in range(k)])


def hadamard(x, *, seed=None, inverse=False):
    """H (s * x) in blocks of the largest power of two that divides K, or s * (H x) with `inverse`."""
    x = np.asarray(x, np.float32)
    k = x.shape[-1]
    n = k & -k  # 0 if k is
    factors = np.float32(1 / np.sqrt(max(n, 1)))
    if seed is not None:
        factors = factors * signs(k, seed)
    with np.errstate(all="ignore"):
        y = x.copy() if inverse else x * factors
        d = 1
        while d < n:
            pairs = y.reshape(-1, 2, d)  # the values i with i & d == 0, and those with i & d != 0
            a, b = pairs[:, 0], pairs[:, 1]
            y = np.stack([a + b, a - b], axis=1).reshape(x.shape)
            d *= 2
        return y * factors if inverse else y
