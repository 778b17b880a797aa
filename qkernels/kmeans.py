"""Optimal 1-D k-means: dynamic programming over sorted values."""

import numpy as np

CUTS = 4096  # places where clusters may be divided before Lloyd's iterations
ITERATIONS = 20_000


def kmeans(x, count, weights=None):
    """The centres of at most `count` clusters of 1-D values, float64, ascending. Sums of weights are finite."""
    values, first = np.unique(x, return_inverse=True)
    mass = np.bincount(first.ravel(), weights, len(values)).astype(np.float64)
    values, mass = values[mass > 0].astype(np.float64), mass[mass > 0]
    if len(values) <= count:
        return values
    cuts = _places(values, mass, count)
    ends = cuts[_divide(Clusters(_moments(values, mass, cuts)), count)]
    middle = values[len(values) // 2]  # sums of distances from it keep more digits
    products, centres = mass * (values - middle), np.zeros(count)
    for _ in range(ITERATIONS):
        size = _sums(mass, ends)
        centres = np.where(size > 0, middle + _sums(products, ends) / np.where(size > 0, size, 1), centres)
        moved = np.searchsorted(values, (centres[:-1] + centres[1:]) / 2, side="right")
        if (moved == ends[1:-1]).all():
            break
        ends[1:-1] = moved
    return centres


def _places(values, mass, count):
    """How many values lie before each place where they may be divided."""
    n = len(values)
    if n <= CUTS:
        return np.arange(n + 1)
    size = max(CUTS, 4 * count) // 2
    by_range = np.searchsorted(values, np.linspace(values[0], values[-1], size))
    by_count = np.linspace(0, n, size).astype(np.intp)
    heavy = np.flatnonzero(mass > np.cumsum(mass)[-1] / size)  # which may each be worth a cluster
    return np.unique(np.concatenate([by_range, by_count, heavy, heavy + 1]))


def _moments(values, mass, ends):
    """[3, parts]: mass, mean and squared error of the values from ends[i] to ends[i + 1]."""
    size, first, lengths = _sums(mass, ends), values[ends[:-1]], np.diff(ends)
    means = first + _sums(mass * (values - np.repeat(first, lengths)), ends) / size
    return np.stack([size, means, _sums(mass * np.square(values - np.repeat(means, lengths)), ends)])


def _sums(x, ends):
    """Of x from ends[i] to ends[i + 1]."""
    sums = np.add.reduceat(np.append(x, 0), ends[:-1])
    return np.where(ends[:-1] < ends[1:], sums, 0)


def _joined(a, b):
    """The moments of two parts as one (T. F. Chan, G. H. Golub, R. J. LeVeque, 1979): nothing in them cancels."""
    share = b[0] / np.maximum(a[0] + b[0], np.finfo(np.float64).tiny)
    step = b[1] - a[1]
    return np.stack([a[0] + b[0], a[1] + step * share, a[2] + b[2] + step * step * (a[0] * share)])


class Clusters:
    """The squared errors of all clusters of consecutive parts.

    Differences of running sums would have no digits left for parts that are light beside those before them. So
    `_tables[h]` has the moments of each part together with all between it and the middle of its block of 2**h parts. A
    cluster whose ends lie in a block's two halves is two of these.
    """

    def __init__(self, moments):
        """moments: [3, parts]."""
        self.parts = moments.shape[1]
        height = (self.parts - 1).bit_length()
        size = 2**height
        padded = np.pad(moments, ((0, 0), (0, size + 1 - self.parts)))  # the last one stands for nothing
        self._height_of = np.zeros(size, np.intp)  # by the bits in which two parts' numbers differ
        for h in range(1, height + 1):
            self._height_of[2 ** (h - 1) : 2**h] = h
        self._tables = np.empty((3, height + 1, size + 1))
        self._tables[:, 0] = padded
        self._tables[:, :, -1] = 0
        for h in range(1, height + 1):
            halves = padded[:, :size].reshape(3, -1, 2, 2 ** (h - 1))
            from_middle = np.stack([halves[:, :, 0, ::-1], halves[:, :, 1]], axis=2)
            reach = 1
            while reach < from_middle.shape[-1]:
                joined = _joined(from_middle[..., :-reach], from_middle[..., reach:])
                from_middle = np.concatenate([from_middle[..., :reach], joined], axis=-1)
                reach *= 2
            in_order = np.stack([from_middle[:, :, 0, ::-1], from_middle[:, :, 1]], axis=2)
            self._tables[:, h, :-1] = in_order.reshape(3, size)

    def errors(self, first, last):
        """Of the clusters from part `first` to part `last`, both included."""
        height = self._height_of[first ^ last]
        return _joined(self._tables[:, height, first], self._tables[:, height, np.where(height > 0, last, -1)])[2]


def _divide(clusters, count):
    """Where to divide parts into `count` clusters of the least squared error: ends[i] to ends[i + 1] is cluster i."""
    least, choices = np.full(clusters.parts + 1, np.inf), []
    least[0] = 0
    for _ in range(count):
        least, choice = _one_cluster_more(least, clusters)
        choices.append(choice)
    ends = [clusters.parts]
    for choice in reversed(choices):
        ends.append(choice[ends[-1]])
    return np.array(ends[::-1])


def _one_cluster_more(before, clusters):
    """least[i] = min over j < i of before[j] + error of the parts from j to i; and the first j that gives it.

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
        errors = before[j] + clusters.errors(j, i[owner] - 1)
        least[i] = np.minimum.reduceat(errors, starts)
        best = np.flatnonzero(errors == least[i][owner])[::-1]
        choice[i[owner[best]]] = j[best]  # of several the first, which is written last
    return least, choice
