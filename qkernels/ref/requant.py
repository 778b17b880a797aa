"""From an exact integer accumulator to int8/uint8: the normative rounding, in both forms."""

import numpy as np

from .affine import RANGES, dtype_name, quantize, storage

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def output_bounds(activation, out_scale, out_zero_point, dtype):
    """The integers that the result is clamped to: the dtype's range cut down by the activation."""
    qmin, qmax = RANGES[dtype_name(dtype)]
    if activation is None:
        return qmin, qmax
    low, high = quantize(np.asarray(activation, np.float32), out_scale, out_zero_point, dtype=dtype)
    return int(low), int(high)


def requantize_float(acc, multiplier, offset, bounds, out_zero_point, dtype):
    """clamp(round_half_even(float32(acc) * multiplier + offset) + out_zero_point), in float32.

    `acc` is int64, `multiplier` float32, `offset` float32 or None (no addition at all then).
    """
    with np.errstate(all="ignore"):
        t = acc.astype(np.float32) * multiplier
        if offset is not None:
            t = t + offset
    t = np.maximum(t, np.float32(bounds[0] - out_zero_point))
    t = np.minimum(t, np.float32(bounds[1] - out_zero_point))
    return (np.rint(t).astype(np.int64) + out_zero_point).astype(storage(dtype))


def quantize_multiplier(real):
    """A positive float64 as q31 * 2**(exponent - 31), q31 in [2**30, 2**31) or 0."""
    mantissa, exponent = np.frexp(np.asarray(real, np.float64))
    q31 = np.floor(mantissa * 2.0**31 + 0.5).astype(np.int64)  # exact sum; half goes up
    exponent = exponent.astype(np.int64)
    carried = q31 == 2**31
    q31 = np.where(carried, q31 // 2, q31)
    exponent = np.where(carried, exponent + 1, exponent)
    if (exponent > 30).any():
        raise ValueError("scales: scales / out_scale is too large for requant='fixed'")
    vanishes = exponent < -31
    return np.where(vanishes, 0, q31), np.where(vanishes, 0, exponent)


def high_mul(x, q31):
    """SaturatingRoundingDoublingHighMul of gemmlowp, for q31 >= 0 (so nothing saturates)."""
    product = x * q31
    nudged = product + np.where(product >= 0, 2**30, 1 - 2**30)
    return np.sign(nudged) * (np.abs(nudged) // 2**31)  # a division that truncates


def rounding_shift(x, right):
    """RoundingDivideByPOT of gemmlowp: x / 2**right, half away from zero."""
    mask = (np.int64(1) << right) - 1
    threshold = (mask >> 1) + (x < 0)
    return (x >> right) + ((x & mask) > threshold)


def requantize_fixed(acc, real, bounds, out_zero_point, dtype):
    """TFLite's double rounding: left shift, 31-bit multiply, rounding right shift."""
    q31, exponent = quantize_multiplier(real)
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    x = np.clip(acc, INT32_MIN, INT32_MAX) * (np.int64(1) << left)
    x = np.clip(x, INT32_MIN, INT32_MAX)
    r = rounding_shift(high_mul(x, q31), right)
    return np.clip(r + out_zero_point, *bounds).astype(storage(dtype))
