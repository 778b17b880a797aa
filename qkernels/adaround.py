"""AdaRound: each weight is rounded down or up so that the outputs of the layer, not the weights, change least
(M. Nagel, R. A. Amjad, M. van Baalen, C. Louizos, T. Blankevoort, "Up or down? Adaptive rounding for post-training
quantization", 2020, arXiv:2004.10568).

A row of the weight is a problem of its own in binary numbers h: least e H e^T, where e = down + step * h is the error
of the row and H the mean of x x^T. Three steps: round one column after another, with the errors before fed back; relax
h to rectified sigmoids that a regularizer drives to 0 and 1, as the paper does, from the middle between that and the
weight; and descend to where no block of columns can be rounded better with the others as they are. """

import numpy as np

from . import _arguments as arguments
from .progress import progress
from .rounding import round_to_nearest, upper_factor

SLAB = 2**18  # weights that are rounded before the next ones are begun
ITERATIONS, RATE, REGULARIZATION, SHARPNESS = 200, 0.05, 10.0, (20, 2)  # of the relaxation; sharpness: from, to
BLOCK, WHOLE = 8, 16  # columns of which all roundings are tried at once; all columns, if they are at most so many
SEARCHED = 2**20  # costs that are held at a time
FORBIDDEN = 1e300  # the cost of rounding up what saturates
NOISE = 1e-11  # of its terms: a cost that falls by less does not fall
SWEEPS = 200  # through the blocks at most; 3 to 30 are usual


def round_adaptively(groups, grid, fitted, hessian):
    """Codes [N, K] of a weight, with a progress bar on a terminal if it takes long.

    hessian: float64 [K, K], the mean of x x^T. For no row is e H e^T greater than with rounding to nearest, and for
    K <= 16 it is the least of all roundings down or up. The result depends on the last bits of NumPy's linear algebra.
    """
    slabs = rounded_slabs(groups, grid, fitted, hessian)
    return np.concatenate([*progress(slabs, groups.shape[0], "adaround", "row", len)])


def rounded_slabs(groups, grid, fitted, hessian, start=0):
    """The parts of what `round_adaptively` returns, some rows each, from row `start` on.

    Rows do not depend on each other, so what was yielded before an interruption stays good: go on with the first row
    that is missing.
    """
    w, nearest = groups.by_value(groups.rows), round_to_nearest(groups, grid, fitted)
    scales, zero_points = map(groups.by_group, fitted)
    upper = upper_factor(hessian)
    feedback = np.triu(upper / np.diag(upper), 1)
    step = max(SLAB // max(w.shape[1], 1), 1)
    for at in range(start, max(len(w), start + 1), step):  # no rows are a slab, too
        part = slice(at, at + step)
        yield _rounded(w[part], nearest[part], scales[part], zero_points[part], grid, groups.size, hessian, feedback)


def _rounded(w, codes, scales, zero_points, grid, size, hessian, feedback):
    """Codes of some rows, from those of the nearest levels."""
    scale, zero = (np.repeat(x, size, axis=1)[:, : w.shape[1]] for x in (scales.astype(np.float32), zero_points))
    top = arguments.qtype(grid.qtype).qmax
    lower = np.floor(w / scale) + zero
    lower, upper = (x.clip(0, top).astype(np.uint8) for x in (lower, lower + 1))
    down = scale.astype(np.float64) * (lower.astype(np.float64) - zero) - w
    step = np.where(upper > lower, scale, 0).astype(np.float64)

    nearest = codes > lower
    up = _relaxed(down, step, _in_turn(down, step, feedback), hessian)
    is_better = _losses(down + step * nearest, hessian) <= _losses(down + step * up, hessian)
    up[is_better] = nearest[is_better]
    return np.where(_descended(down, step, up, hessian, size), upper, lower)


def _losses(errors, hessian):
    """e H e^T of each row."""
    return np.einsum("nk,nk->n", errors @ hessian, errors)


def _in_turn(down, step, feedback):
    """Which weights are rounded up if one column after another takes what is best for its term of the cost.

    That is the sum over columns j of D_jj (e_j + sum of U_ij e_i over i < j)^2 with H = (1 + U) D (1 + U)^T, U being
    the feedback.
    """
    errors = np.empty(down.shape[::-1])
    up = np.empty(errors.shape, bool)
    for j in range(len(errors)):
        before = feedback[:j, j] @ errors[:j]
        up[j] = 2 * (before + down[:, j]) + step[:, j] < 0
        errors[j] = down[:, j] + step[:, j] * up[j]
    return up.T & (step > 0)


def _relaxed(down, step, start, hessian):
    """Which weights the relaxation rounds up: h = clip(1.2 sigmoid(v) - 0.1, 0, 1) minimizes, by Adam,

        e H e^T + REGULARIZATION * sum(1 - |2 h - 1|^sharpness),    e = down + step * h

    in units of the mean square of steps and the mean diagonal of H. v starts with h in the middle between where the
    weight lies among its two levels, and `start`. Little depends on last digits, so it is done in float32.
    """
    movable = np.where(step > 0, step, 1)
    soft = np.where(step > 0, (start - down / movable) / 2, start).clip(0, 1)
    mean = (step * step).mean(axis=1, keepdims=True) * np.diag(hessian).mean() if step.size else step
    unit = np.sqrt(np.where(mean > 0, mean, 1))
    down, step, hessian, soft = (x.astype(np.float32) for x in (down / unit, step / unit, hessian, soft))
    v = np.log((soft + np.float32(0.1)) / (np.float32(1.1) - soft))
    first, second = np.zeros_like(v), np.zeros_like(v)
    for i in range(1, ITERATIONS + 1):
        sigmoid = 1 / (1 + np.exp(-v))
        raw = np.float32(1.2) * sigmoid - np.float32(0.1)
        h = raw.clip(0, 1)
        slope = 2 * step * ((down + step * h) @ hessian) + _regularization_slope(h, i / ITERATIONS)
        slope *= np.float32(1.2) * sigmoid * (1 - sigmoid) * (raw == h)
        first += np.float32(0.1) * (slope - first)
        second += np.float32(0.001) * (slope * slope - second)
        v -= np.float32(RATE / (1 - 0.9**i)) * first / (np.sqrt(second / np.float32(1 - 0.999**i)) + np.float32(1e-8))
    return (h > 0.5) & (step > 0)


def _regularization_slope(h, progress):
    high, low = SHARPNESS
    sharpness = np.float32(low + (high - low) * (1 + np.cos(np.pi * progress)) / 2)
    from_middle = 2 * h - 1
    return -2 * REGULARIZATION * sharpness * np.sign(from_middle) * np.abs(from_middle) ** (sharpness - 1)


def _descended(down, step, up, hessian, group_size):
    """Rounding up of weights, changed block by block to the best of all roundings of the block until none is better.

    A block lies in one group, whose step all its columns share or have none, so that its cost for all roundings of all
    rows is one matrix product. Rows are done with once no block of them changes: each change lowers the cost by more
    than rounding may have, so that none comes back. That rounding is measured by a bound of the cost's terms, which
    cannot cancel: of inputs that hardly vary a cost may come out as 0 or less.
    """
    k = down.shape[1]
    width = k if k <= WHOLE else BLOCK
    blocks = [slice(at, min(at + width, group + group_size, k))
              for group in range(0, k, group_size or 1) for at in range(group, min(group + group_size, k), width)]
    roundings = {n: _all_roundings(n) for n in {block.stop - block.start for block in blocks}}
    up, active = up.copy(), np.arange(len(up))
    sizes = np.sqrt(np.diag(hessian))  # |hessian[i, j]| <= sizes[i] * sizes[j]
    for _ in range(SWEEPS):
        if not active.size:
            break
        rows, part = up[active], step[active]
        errors = down[active] + part * rows
        slopes = errors @ hessian
        noise = NOISE * np.square(np.abs(errors) @ sizes)
        moved = np.zeros(len(rows), bool)
        for block in blocks:
            inside = hessian[block, block]
            changed, better = _search(rows[:, block], part[:, block], slopes[:, block], inside, noise,
                                      roundings[block.stop - block.start])
            change = part[changed, block] * (better - rows[changed, block].astype(np.float64))
            slopes[changed] += change @ hessian[block]
            rows[changed, block] = better
            moved[changed] = True
        up[active] = rows
        active = active[moved]
    return up


def _all_roundings(n):
    """[2**n, n]: row i holds the bits of i, the first the lowest."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)


def _search(up, step, slopes, hessian, noise, roundings):
    """Which rows of a block have a better rounding than `up`, and the best one for these.

    With s for the step and g for the slopes e H^T of the current errors, the cost of h less what all h have is
    2 s (g - s up H) h^T + s^2 h H h^T.
    """
    changed, better = [], []
    own = np.einsum("ik,kl,il->i", roundings, hessian, roundings)
    numbers = up @ (1 << np.arange(up.shape[1]))
    scale = step.max(axis=1)
    linear = 2 * scale[:, None] * (slopes - (scale[:, None] * up) @ hessian)
    linear[step == 0] = FORBIDDEN
    noise = noise + NOISE * scale * scale * np.trace(hessian)
    count = max(SEARCHED // len(roundings), 1)
    for at in range(0, len(up), count):
        part = slice(at, at + count)
        costs = linear[part] @ roundings.T
        costs += (scale[part] * scale[part])[:, None] * own
        every = np.arange(len(costs))
        best = costs.argmin(axis=1)
        is_better = costs[every, numbers[part]] - costs[every, best] > noise[part]
        changed.append(at + every[is_better])
        better.append(roundings[best[is_better]])
    return np.concatenate(changed), np.concatenate(better)
