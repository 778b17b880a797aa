"""Checks of arguments, shared by the public functions: arrays in, the right exception out.

Every message starts with the name of the argument and says what it got and what it takes.
"""

import math
import numbers
from collections.abc import Mapping

import numpy as np

ACTIVATIONS = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


class QType:
    """A quantized type: its name, range and storage dtype."""

    __slots__ = ("name", "qmin", "qmax", "storage", "range")

    def __init__(self, name, qmin, qmax):
        self.name, self.qmin, self.qmax = name, qmin, qmax
        self.storage = np.dtype(np.int8 if qmin < 0 else np.uint8)
        self.range = {"qmin": qmin, "qmax": qmax, "is_signed": qmin < 0}  # as the binding takes it


QTYPES = {
    t.name: t
    for bits in (8, 4, 2)
    for t in (QType(f"int{bits}", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1), QType(f"uint{bits}", 0, 2**bits - 1))
}


def qtype(dtype, name="dtype"):
    """The QType that a dtype argument names: a string, or NumPy's int8 and uint8."""
    key = dtype
    if not isinstance(dtype, str):
        try:
            key = np.dtype(dtype).name
        except TypeError:
            key = None
        key = key if key in ("int8", "uint8") else None
    if key not in QTYPES:
        raise TypeError(f"{name}: got {dtype!r}, takes one of {', '.join(QTYPES)}")
    return QTYPES[key]


def array(x, name):
    """An ndarray that shares memory with x, from NumPy, DLPack or ``__array__``."""
    if isinstance(x, np.ndarray):
        return x if type(x) is np.ndarray else np.asarray(x)  # methods of np.matrix and others take other arguments
    if hasattr(x, "__dlpack__"):
        try:
            return np.from_dlpack(x)
        except (BufferError, RuntimeError, ValueError, TypeError) as error:
            if not hasattr(x, "__array__"):
                raise TypeError(f"{name}: its __dlpack__ does not give a CPU array ({error})") from error
    if hasattr(x, "__array__"):
        try:
            return np.asarray(x)
        except (RuntimeError, TypeError) as error:  # of a tensor that requires a gradient, or lies on another device
            raise TypeError(f"{name}: its __array__ does not give a CPU array ({error})") from error
    raise TypeError(f"{name}: got {type(x).__name__}, takes a NumPy array or an object with __dlpack__ or __array__")


def float_array(x, name):
    """A native float32 array. Python floats and lists, which have no dtype of their own, become float32."""
    if isinstance(x, (float, int, list, tuple)) and not isinstance(x, (bool, np.generic)):
        try:
            with np.errstate(over="ignore"):
                x = np.asarray(x, np.float32)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: takes float32 numbers ({error})") from error
    x = array(x, name)
    if x.dtype != np.float32 or not x.dtype.isnative:
        raise TypeError(f"{name}: got dtype {x.dtype.str!r} ({x.dtype}), takes native float32; "
                        f"convert it by {name}.astype(np.float32)")
    return x


def wide_array(x, name):
    """As `float_array`; float16 and bfloat16, which ml_dtypes brings to NumPy, are converted."""
    if hasattr(x, "__dlpack__") or hasattr(x, "__array__"):
        x = _widened(array(x, name))
    return float_array(x, name)


def _widened(x):
    return x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else x


def byte_array(x, name, unsigned_only=False):
    """An int8 or uint8 array."""
    x = array(x, name)
    if x.dtype != np.uint8 and (unsigned_only or x.dtype != np.int8):
        raise TypeError(f"{name}: got dtype {x.dtype}, takes {'uint8' if unsigned_only else 'int8 or uint8'}")
    return x


def parameter(x, name):
    """Scales, zero points or a bias as an ndarray, from whatever NumPy or DLPack makes one of."""
    if isinstance(x, int) and not -(2**63) <= x < 2**63:  # NumPy would make an object array of it
        raise ValueError(f"{name}: got {x}, which is out of range")
    return array(x, name) if hasattr(x, "__dlpack__") else np.asarray(x)


def float_parameter(x, name, shape):
    """Scales or biases as contiguous float32 of this shape; a scalar stands for all. Rounded to float32 once."""
    x = parameter(x, name)
    if x.dtype.kind not in ("iuf" if x.ndim == 0 else "f"):
        raise TypeError(f"{name}: got dtype {x.dtype}, takes floating-point numbers")
    with np.errstate(over="ignore"):  # an infinity is refused with the other bad values
        x = x.astype(np.float32)
    return broadcast(x, name, shape)


def integer_parameter(x, name, shape):
    """Zero points as contiguous int32 of this shape; a scalar stands for all."""
    x = parameter(x, name)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name}: got dtype {x.dtype}, takes integers")
    if not np.can_cast(x.dtype, np.int32) and x.size and (x.min() < -(2**31) or x.max() >= 2**31):
        raise ValueError(f"{name}: must lie in the range of the quantized type everywhere")
    return broadcast(x.astype(np.int32), name, shape)


def broadcast(x, name, shape):
    """A contiguous array of this shape from one of the same shape or a scalar."""
    if x.shape == tuple(shape):
        return np.ascontiguousarray(x).reshape(shape)  # ascontiguousarray makes 0-d arrays 1-d
    if x.ndim:
        raise ValueError(f"{name}: got shape {x.shape}, takes a scalar or shape {tuple(shape)}")
    return np.full(shape, x)


def scalar(x, name, low, high):
    """A Python int or NumPy integer in [low, high]."""
    value = x
    if type(x) is not int:
        value = parameter(x, name)
        if value.ndim or value.dtype.kind not in "iu":
            raise TypeError(f"{name}: got {x!r}, takes one integer")
    if not low <= value <= high:
        raise ValueError(f"{name}: got {x!r}, takes {low} to {high}")
    return int(value)


def positive(x, name, most):
    """One number greater than 0 and at most `most`."""
    if not isinstance(x, numbers.Real) or isinstance(x, bool):
        raise TypeError(f"{name}: got {x!r}, takes one number")
    if not 0 < x <= most:
        raise ValueError(f"{name}: got {x}, takes more than 0 and at most {most}")
    return float(x)


def check_state(state, needed, others=()):
    """Refuse a state that is no mapping, lacks an entry that is needed, or has one that is not among the others."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state: got {type(state).__name__}, takes a mapping of names to arrays")
    for name in needed:
        if name not in state:
            raise ValueError(f"state: lacks {name}")
    for name in state:
        if name not in (*needed, *others):
            raise ValueError(f"state: has {name!r}, which is no entry of it")


def one_or_each(x, name, length, convert):
    """A parameter as a 1-D array: of one value, or of `length`."""
    x = parameter(x, name)
    return convert(x, name, (1,) if x.ndim == 0 else (length,))


def gemm_bias(x, n, scaled):
    """A bias of n columns: int32, or float32 if the product is scaled."""
    x = parameter(x, "bias")
    if x.dtype != np.int32 and x.dtype.kind != "f":
        raise TypeError(f"bias: got dtype {x.dtype}, takes float32 or int32")
    if x.shape != (n,):
        raise ValueError(f"bias: got shape {x.shape}, takes {(n,)}")
    if x.dtype == np.int32:
        return integer_parameter(x, "bias", (n,))
    if not scaled:
        raise ValueError(f"bias: got dtype {x.dtype}, takes int32 when no scales are given")
    return float_parameter(x, "bias", (n,))


def linear_bias(x, n):
    """A bias as contiguous, finite float32 [n]; halves are converted as those of `wide_array`."""
    x = _widened(parameter(x, "bias"))
    if x.dtype.kind != "f":
        raise TypeError(f"bias: got dtype {x.dtype}, takes floating-point numbers")
    if x.shape != (n,):
        raise ValueError(f"bias: got shape {x.shape}, takes {(n,)}")
    x = float_parameter(x, "bias", (n,))
    if not np.isfinite(x).all():
        raise ValueError("bias: must be finite everywhere")
    return x


def clamp_bounds(activation, others=()):
    """The (low, high) bounds of an activation, in real units; `others` are names that the caller takes, too."""
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    takes = ", ".join(map(repr, (None, *ACTIVATIONS, *others))) + " or a (low, high) pair of floats"
    if isinstance(activation, str):
        raise ValueError(f"activation: got {activation!r}, takes {takes}")
    try:
        low, high = (float(bound) for bound in activation)
    except (TypeError, ValueError):
        raise TypeError(f"activation: got {activation!r}, takes {takes}") from None
    if not low <= high:
        raise ValueError(f"activation: got the bounds ({low}, {high}), takes low <= high")
    return low, high


def gemm_dtype(out_dtype, scaled):
    """The dtype of a product that is asked for, when it goes with scales, or without."""
    try:
        dtype = np.dtype(out_dtype)
    except TypeError:
        dtype = None
    if dtype not in (np.int32, np.float32, np.int8, np.uint8):
        raise TypeError(f"out_dtype: got {out_dtype!r}, takes int32, float32, int8 or uint8")
    if (dtype == np.int32) != (not scaled):
        raise ValueError(f"out_dtype: got {dtype} {'with' if scaled else 'without'} scales; "
                         "int32 is the output without scales, float32, int8 and uint8 need them")
    return dtype
