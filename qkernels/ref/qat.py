"""The gradients of fake_quantize, straight through, by cases; their sums in float64, in the documented order."""

import numpy as np

from .affine import RANGES, dtype_name, spread

LANES = 8


def fake_quantize_backward(dy, x, scale, zero_point=0, *, dtype="int8", axis=None, group_size=None):
    """dy where the rounded value is in range, else 0."""
    return _by_value(dy, x, scale, zero_point, dtype, axis, group_size)[0]


def learned_fake_quantize_backward(
    dy, x, scale, zero_point=0, *, dtype="int8", axis=None, group_size=None, grad_factor=1.0
):
    """dx, and the gradients of the scales and zero points."""
    dx, dscale, dclip = _by_value(dy, x, scale, zero_point, dtype, axis, group_size)
    dscale = _sums(dscale, axis, group_size)
    steps = np.asarray(scale, np.float32).astype(np.float64)
    dzero_point = 0.0 - steps * _sums(dclip, axis, group_size)
    with np.errstate(all="ignore"):
        return (
            dx,
            (dscale * grad_factor).astype(np.float32)[()],
            (dzero_point * grad_factor).astype(np.float32)[()],
        )


def _by_value(dy, x, scale, zero_point, dtype, axis, group_size):
    """dx in float32; the terms of dscale, and dy where it is clipped, in float64."""
    dy, x = np.asarray(dy, np.float32), np.asarray(x, np.float32)
    if np.isnan(x).any():
        raise ValueError("x: has NaN values")
    qmin, qmax = RANGES[dtype_name(dtype)]
    scale = spread(np.asarray(scale, np.float32), x.shape, axis, group_size)
    zero = spread(np.asarray(zero_point).astype(np.float64), x.shape, axis, group_size)
    with np.errstate(all="ignore"):
        t = np.asarray(x / scale).astype(np.float64)
        q = np.rint(t) + zero
        inside = (qmin <= q) & (q <= qmax)
        factor = np.where(inside, np.rint(t) - t, np.where(q < qmin, qmin - zero, qmax - zero))
        dx = np.where(inside, dy, np.float32(0))
        return dx, dy.astype(np.float64) * factor, np.where(inside, 0.0, dy.astype(np.float64))


def _sums(terms, axis, group_size):
    """Value i of a run to lane i % 8, run after run; then the lanes, the second half to the first."""
    if group_size is not None:
        groups = -(-terms.shape[-1] // group_size)
        short = groups * group_size - terms.shape[-1]
        terms = np.pad(terms, [(0, 0)] * (terms.ndim - 1) + [(0, short)])
        shape = terms.shape[:-1] + (groups,)
        runs = terms.reshape(1, int(np.prod(shape)), group_size)
    elif axis is not None:
        axis %= terms.ndim
        shape = (terms.shape[axis],)
        outer = int(np.prod(terms.shape[:axis]))
        runs = terms.reshape(outer, shape[0], int(np.prod(terms.shape[axis + 1 :])))
    else:
        shape = ()
        runs = terms.reshape(1, 1, terms.size)
    runs = np.pad(runs, [(0, 0), (0, 0), (0, -runs.shape[2] % LANES)])
    lanes = np.zeros((runs.shape[1], LANES))
    with np.errstate(all="ignore"):
        for run in runs:
            for i in range(0, run.shape[1], LANES):
                lanes = lanes + run[:, i : i + LANES]
        for half in (4, 2, 1):
            lanes = lanes[:, :half] + lanes[:, half : 2 * half]
    return lanes[:, 0].reshape(shape)
