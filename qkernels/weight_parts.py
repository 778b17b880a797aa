"""What a quantized weight consists of: checks of each part, and the codes of states."""

import math

import numpy as np

from . import _arguments as arguments
from . import _core, formats, trellis
from .groups import group_count
from .packing import pack, unpack

SCALE_DTYPES = ("float16", "float32")
LARGEST_EMPTY = 2**24  # rows or columns of an empty matrix, which no memory bears out


def check_extents(shape, name):
    """Refuse an empty matrix whose rows or columns would nevertheless be counted for ages."""
    if 0 in shape and max(shape) > LARGEST_EMPTY:
        raise ValueError(f"{name}: got {tuple(shape)}, takes up to {LARGEST_EMPTY} rows and columns in an empty matrix")


def checked_window(window, record):
    if window is None:
        return None
    if record.family != "trellis":
        raise ValueError(f"window: only applies to {', '.join(formats.of_family('trellis'))}, not to {record.name!r}")
    return arguments.scalar(window, "window", formats.WINDOWS[0], formats.WINDOWS[-1])


def checked_levels(levels, record, window, n):
    """The table that a weight of this format has."""
    if record.name != "codebook4":
        if levels is not None:
            raise ValueError(f"levels: those of {record.name} are its own")
        return trellis.levels(record.bits) if record.family == "trellis" and window is None else record.levels
    if levels is None:
        raise ValueError("levels: needed for codebook4")
    if levels.dtype != np.int8:
        raise TypeError(f"levels: got dtype {levels.dtype}, takes int8")
    if levels.shape not in ((16,), (n, 16)):
        raise ValueError(f"levels: got shape {levels.shape}, takes (16,) or {(n, 16)}")
    return np.array(levels, order="C")  # the caller's may change


def checked_input_scales(x, k):
    """A copy of what x is multiplied with, or None."""
    if x is None:
        return None
    x = np.array(arguments.float_array(x, "input_scales"))  # the caller's may change
    if x.shape != (k,) or not (np.isfinite(x) & (x > 0)).all():
        raise ValueError(f"input_scales: got shape {x.shape}, takes {(k,)}, finite and > 0 everywhere")
    x.flags.writeable = False
    return x


def by_group(x, name, shape):
    """Contiguous [N, G]; [N] is taken where G is always 1, without groups."""
    if x.shape != shape and (shape[1] != 1 or x.shape != shape[:1]):
        raise ValueError(f"{name}: got shape {x.shape}, takes {shape}")
    return _core.contiguous(x).reshape(shape)


def int4_zero_points(x, zero):
    """uint8, of the given shape; None where all are the middle code."""
    if x is None:
        raise ValueError("zero_points: needed for unsigned q; a symmetric weight has 8")
    x = arguments.parameter(x, "zero_points")
    x = arguments.integer_parameter(x, "zero_points", x.shape)
    if x.size and (x.min() < 0 or x.max() > 15):
        raise ValueError("zero_points: must lie in 0 to 15 everywhere")
    return None if (x == zero).all() else x.astype(np.uint8)


def code_bytes(k, record, group_size):
    """Bytes of a row of codes in a state."""
    if record.family == "trellis":  # whole words
        block = _core.weight_block(k, group_size)
        k = -(-k // block) * block
    return -(-k * record.bits // 8)


def state_bytes(record, shape, group_size, scale_dtype, *, has_zero_points, row_tables, integers, has_input_scales):
    """Bytes of the arrays of a state.

    Parameters
    ----------
    record : WeightFormat
    shape, group_size, scale_dtype
        Of the weight; of a stack of weights [E, N, K].
    has_zero_points, has_input_scales : bool
    row_tables : bool
        Whether the levels of "codebook4" are those of each row.
    integers : sequence of int or None
        Entries that a state has where they are not None: window and seed.
    """
    *count, n, k = shape
    of_group = np.dtype(scale_dtype).itemsize + has_zero_points
    of_row = code_bytes(k, record, group_size) + group_count(k, group_size) * of_group
    tables = 0 if record.name != "codebook4" else n if row_tables else 1
    integers = 2 + len(shape) + sum(x is not None for x in integers)  # version and group size
    return (math.prod(count) * (n * of_row + 16 * tables + 4 * k * has_input_scales)
            + np.dtype(np.int64).itemsize * integers + np.array(record.name).nbytes)


def pack_codes(codes, record):
    return codes if record.bits == 8 or record.family == "trellis" else pack(codes, record.bits)


def unpack_codes(packed, record, k):
    is_plain = record.bits == 8 or record.family == "trellis"
    return packed if is_plain else unpack(packed, record.bits, k, signed=False)
