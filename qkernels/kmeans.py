"""Optimal 1-D k-means: dynamic programming over sorted values."""

import numpy as np

CUTS = 4096  # places where clusters may be divided before Lloyd's iterations
ITERATIONS = 20_000


def kmeans(x, count, weights=None):
    """The centres of at most `count` clusters of 1-D values, float64, ascending."""
    values, first = np.unique(x, return_inverse=True)
    mass = np.bincount(first.ravel(), weights, len(values)).astype(np.float64)
    values, mass = values[mass > 0].astype(np.float64), mass[mass > 0]
    if len(values) <= count:
        return values
    middle = values[len(values) // 2]  # sums of squares around it keep more digits
    values -= middle
    sums = np.zeros((3, len(values) + 1))
    np.cumsum([mass, mass * values, mass * values * values], axis=1, out=sums[:, 1:])
    cuts = _places(values, count)
    ends = cuts[_divide(sums[:, cuts], count)]
    for _ in range(ITERATIONS):
        centres = np.diff(sums[1, ends]) / np.diff(sums[0, ends])
        moved = np.searchsorted(values, (centres[:-1] + centres[1:]) / 2, side="right")
        if (moved == ends[1:-1]).all():
            break
        ends[1:-1] = moved
    return centres + middle


def _places(values, count):
    """How many values lie before each place where they may be divided."""
    n = len(values)
    if n <= CUTS:
        return np.arange(n + 1)
    size = max(CUTS, 4 * count) // 2
    by_range = np.searchsorted(values, np.linspace(values[0], values[-1], size))
    by_count = np.linspace(0, n, size).astype(np.intp)
    return np.unique(np.concatenate([by_range, by_count]))


def _divide(sums, count):
    """Where to divide values into `count` clusters of the least squared error, from the running sums of their masses,
    moments and squares: ends[i] to ends[i + 1] is cluster i."""
    least, choices = np.full(sums.shape[1], np.inf), []
    least[0] = 0
    for _ in range(count):
        least, choice = _one_cluster_more(least, sums)
        choices.append(choice)
    ends = [sums.shape[1] - 1]
    for choice in reversed(choices):
        ends.append(choice[ends[-1]])
    return np.array(ends[::-1])


def _one_cluster_more(before, sums):
    """least[i] = min over j < i of before[j] + error of the values from j to i; and the first j that gives it.

    That j never falls as i grows, so each i need only look between those of two neighbors that are known: first the
    i that are an odd multiple of a large power of two, then of half of it, and so on, each time all at once.
    """
    n = len(before)
    least, choice = np.full(n, np.inf), np.zeros(n, np.intp)
    step = 1 << (n - 1).bit_length()
    while step := step // 2:
        i = np.arange(step, n, 2 * step)
        low, high = choice[i - step], i - 1
        inside = i + step < n
        high[inside] = np.minimum(high[inside], choice[i[inside] + step])
        lengths = high - low + 1
        starts = np.cumsum(lengths) - lengths
        owner = np.repeat(np.arange(len(i)), lengths)
        j = np.arange(lengths.sum()) - (starts - low)[owner]
        mass, moment, square = sums[:, i[owner]] - sums[:, j]
        errors = before[j] + (square - moment * moment / mass)
        least[i] = np.minimum.reduceat(errors, starts)
        best = np.flatnonzero(errors == least[i][owner])[::-1]
        choice[i[owner[best]]] = j[best]  # of several the first, which is written last
    return least, choice
