"""Weights in few bits with scales by group along k, and the linear layer: integer sums a block of k, each scaled and
added in float32."""

from typing import NamedTuple

import numpy as np

from . import activation as smooth
from .affine import SMALLEST_SCALE, choose_qparams, dequantize, quantize
from .gemm import ACTIVATIONS
from .hadamard import hadamard

# The parts of a group's range that method "mse" tries.
SHRINKS = np.float32([1 - i / 40 for i in range(33)])
SMOOTH = {"gelu": smooth.gelu, "silu": smooth.silu}
SPLIT_LIMIT = 254 * 254 * 127.5 - 1  # of a number whose highest digit in base 254 is rounded to 127 at most


class Weight(NamedTuple):
    """W[n, k] = scale * level, the level being code - zero point, or what `levels` has."""

    codes: np.ndarray  # uint8 [N, K]; of a trellis the bytes of its streams
    scales: np.ndarray  # float16 or float32 [N, G]
    zero_points: np.ndarray | None  # uint8 [N, G]; None where all are 2**(bits - 1)
    bits: int
    group_size: int | None  # values along k that share a scale; None: one scale a row, G = 1
    format: str | None = None  # None: "int8", "int4" or "int2", by bits
    levels: np.ndarray | None = None  # int8 [N, K], where they are not code - zero point
    table: np.ndarray | None = None  # int8 [16] or [N, 16], if it is one of the weight itself
    window: int | None = None  # bits of a state of a trellis whose levels are computed

    def integers(self):
        """The levels, int64 [N, K]."""
        if self.levels is not None:
            return self.levels.astype(np.int64)
        zero = np.full(self.scales.shape, 2 ** (self.bits - 1)) if self.zero_points is None else self.zero_points
        size = self.codes.shape[1] if self.group_size is None else self.group_size
        return self.codes - np.repeat(zero.astype(np.int64), size, axis=1)[:, : self.codes.shape[1]]

    def dequantize(self):
        """float32(level) * float32(scale)."""
        levels = self.integers()
        size = levels.shape[1] if self.group_size is None else self.group_size
        return dequantize(levels, self.scales.astype(np.float32), group_size=size)


def quantize_weight(
    w, format="int8", *, group_size=None, symmetric=True, method="minmax", scale_dtype="float16", full_range=False
):
    """w [N, K] to a Weight."""
    bits = int(format.removeprefix("int"))
    dtype = f"uint{bits}"
    n, k = w.shape
    groups, count = by_group(w, group_size)  # zeros become 0.0 whatever the scale
    low, high = groups.min(axis=1, initial=np.float32(0)), groups.max(axis=1, initial=np.float32(0))

    least = np.full(n * count, np.inf)
    codes = np.zeros(groups.shape, np.uint8)
    scales, zero_points = np.zeros(n * count, scale_dtype), np.zeros(n * count, np.uint8)
    for shrink in SHRINKS if method == "mse" else SHRINKS[:1]:
        ends = np.stack([low * shrink, high * shrink], axis=1)
        params = choose_qparams(ends, dtype, axis=0, symmetric=symmetric, full_range=full_range)
        scale = stored(params.scale, scale_dtype)
        # The zero point belongs to the scale as it is stored: the code where the lower end becomes 0.
        zero = params.zero_point if symmetric else quantize(-ends[:, 0], scale, dtype=dtype, axis=0)
        code = quantize(groups, scale, zero, dtype=dtype, axis=0)
        error = sum_of_squares(dequantize(code, scale, zero, axis=0) - groups)
        better = (error < least) | (shrink == 1)
        least[better] = error[better]
        codes[better], scales[better], zero_points[better] = code[better], scale[better], zero[better]
    codes = codes.reshape(n, count * groups.shape[1])[:, :k]
    zero_points = None if symmetric else zero_points.reshape(n, count)
    return Weight(codes, scales.reshape(n, count), zero_points, bits, group_size)


def by_group(x, group_size):
    """A row for each group of [N, K], and how many groups a row of x has. Zeros fill the last of them up."""
    n, k = x.shape
    count = 1 if group_size is None else -(-k // group_size)
    size = k if count == 1 else group_size
    padded = np.zeros((n, count * size), x.dtype)
    padded[:, :k] = x
    return padded.reshape(n * count, size), count


def stored(scale, dtype):
    """Rounded to the type that scales are stored in, and never to 0."""
    with np.errstate(all="ignore"):
        return np.maximum(scale.astype(dtype), np.finfo(dtype).smallest_subnormal)


def sum_of_squares(x, weights=1):
    """Of each row of float32 numbers, in float64; squares may be weighted."""
    return sum_rows(np.square(x, dtype=np.float64) * weights)


def sum_rows(x):
    """Of float64: the upper half is added to the lower until one is left."""
    while x.shape[1] > 1:
        half = -(-x.shape[1] // 2)
        lower, upper = x[:, :half].copy(), x[:, half:]
        lower[:, : upper.shape[1]] += upper
        x = lower
    return x.sum(axis=1)


def linear(x, weight, bias=None, *, activations="int8", activation_scales="row", activation=None, seed=None,
           input_scales=None):
    """x [..., K] times the transposed Weight [N, K]; rotated first if there is a seed, multiplied by input_scales."""
    x = np.asarray(x, np.float32)
    n, k = weight.integers().shape
    rows, exponents = transform(x.reshape(int(np.prod(x.shape[:-1])), k), seed, input_scales)
    block = block_size(k, weight.group_size)
    row_scales = np.ones(len(rows), np.float32)
    if activations == "float32":
        parts = split(rows, block)
    elif activation_scales == "group":
        q, scales = quantize_blocks(rows, block)
        parts = [(q, scales)]
    else:
        q, scales = quantize_blocks(rows, max(k, 1))
        parts = [(q, None)]
        row_scales = scales[:, 0] if k else row_scales
    bias = np.full(n, np.float32(-0.0)) if bias is None else np.asarray(bias, np.float32)

    def product(kind, multiply_add, factors):
        sums = [sum_blocks(q, scales, weight, block, kind, multiply_add) for q, scales in parts]
        with np.errstate(all="ignore"):
            y = sums[0]
            for more in sums[1:]:
                y = y + more
            return y * factors.astype(kind)[:, None] + bias.astype(kind)

    y = product(np.float32, fma, row_scales)
    wide = ~np.isfinite(y) | (exponents != 0)[:, None]
    if wide.any():
        factors = np.ldexp(row_scales.astype(np.float64), exponents)
        with np.errstate(all="ignore"):
            y = np.where(wide, product(np.float64, lambda a, b, c: a * b + c, factors), y).astype(np.float32)
    if isinstance(activation, str) and activation in SMOOTH:
        y = SMOOTH[activation](y).astype(np.float32)  # the kernels come close to this; all else is the same bits
    elif activation is not None:
        low, high = ACTIVATIONS[activation] if isinstance(activation, str) else activation
        y = np.where(y < np.float32(low), np.float32(low), y)
        y = np.where(y > np.float32(high), np.float32(high), y)
    return y.reshape(x.shape[:-1] + (n,))


def transform(rows, seed, input_scales):
    """2**-exponent * rows * input_scales, rotated, and the exponents [M]: 0 where the largest value of a row is in
    [2**-100, 2**100), else such that it comes to lie in [0.5, 1]."""
    exponents = np.zeros(len(rows), int)
    if seed is None and input_scales is None:
        return rows, exponents
    products = rows.astype(np.float64) * (1 if input_scales is None else input_scales)
    with np.errstate(all="ignore"):
        largest = np.abs(products.astype(np.float32)).max(axis=1, initial=0)
    ordinary = (largest >= 2.0**-100) & (largest < 2.0**100)
    exponents = np.where(ordinary, exponents, np.frexp(np.abs(products).max(axis=1, initial=0))[1])
    rows = np.ldexp(products, -exponents[:, None]).astype(np.float32)
    return rows if seed is None else hadamard(rows, seed=seed), exponents


def quantize_blocks(x, block):
    """int8, symmetric, with a scale for each block. One below the normal numbers is a multiple of 2**-149."""
    scales = choose_qparams(x, group_size=block).scale
    q = quantize(x, scales, group_size=block)
    for row, b in zip(*np.nonzero(scales == SMALLEST_SCALE)):
        part = slice(b * block, (b + 1) * block)
        units = np.ldexp(x[row, part], 149)
        steps = np.ceil(np.abs(units).max() / np.float32(127))
        q[row, part] = np.rint(units / steps)
        scales[row, b] = np.ldexp(steps, -149)
    return q, scales


def block_size(k, group_size):
    """How many values along k are summed as integers: a multiple of 32, at most 256, and none of two groups."""
    if group_size is None or group_size >= k:
        blocks = max(-(-k // 256), 1)
        return max(-(-k // (32 * blocks)), 1) * 32
    return max(size for size in range(32, 257, 32) if group_size % size == 0)


def sum_blocks(q, q_scales, weight, block, kind, multiply_add):
    """multiply_add(sum of a block [* scale of q], scale of the weight, what the blocks before gave), in floats of a
    kind."""
    levels = weight.integers()
    n, k = levels.shape
    total = np.zeros((len(q), n), kind)
    for b, start in enumerate(range(0, k, block)):
        part = slice(start, start + block)
        group = 0 if weight.group_size is None else start // weight.group_size
        acc = q[:, part].astype(np.int64) @ levels[:, part].T
        with np.errstate(all="ignore"):
            factor = acc.astype(kind)
            if q_scales is not None:
                factor = factor * q_scales[:, b, None].astype(kind)
            total = multiply_add(factor, weight.scales[:, group].astype(kind), total)
    return total


def fma(a, b, c):
    """a * b + c in float32, rounded once.

    The product of two float32 is exact in float64. The sum s is rounded there to the nearest, and `error`, what that
    left out, is exact, too (Knuth's TwoSum). Rounded to odd instead, that is to the neighbor whose last bit is 1 where
    it is not exact, s rounds to float32 as the exact sum does, since float64 has more than two bits to spare (Boldo and
    Melquiond, Emulation of FMA and correctly rounded sums, IEEE Transactions on Computers 57, 2008).
    """
    product, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    with np.errstate(all="ignore"):
        s = product + c
        virtual = s - product
        error = (product - (s - virtual)) + (c - virtual)
        is_even = s.view(np.int64) & 1 == 0
        odd = np.nextafter(s, np.where(error > 0, np.inf, -np.inf))
        return np.where(np.isfinite(s) & (error != 0) & is_even, odd, s).astype(np.float32)


def split(x, block):
    """Rows of floats as three int8 numbers each, and what these are worth: x = high * (254 * 254 * step) + middle *
    (254 * step) + low * step, the step being a power of two for each block."""
    m, k = x.shape
    blocks = -(-k // block)
    padded = np.zeros((m, blocks * block), np.float32)
    padded[:, :k] = x
    largest = np.abs(padded).reshape(m, blocks, block).max(axis=2)
    # The least power of two in float32 in whose steps the largest value is within the limit.
    fraction, exponent = np.frexp(np.maximum(largest, 2.0**-149).astype(np.float64) / SPLIT_LIMIT)
    exponent = np.maximum(np.where(fraction == 0.5, exponent - 1, exponent), -149)
    step = np.ldexp(np.float32(1), exponent)

    base = np.float32(254)
    steps = np.rint(x / np.repeat(step, block, axis=1)[:, :k].astype(np.float64)).astype(np.float32)
    high = np.rint(steps * (np.float32(1) / (base * base)))
    rest = steps - high * (base * base)
    middle = np.rint(rest * (np.float32(1) / base))
    low = rest - middle * base
    return [(high, step * (base * base)), (middle, step * base), (low, step)]
