"""Which candidate for which layer: the multiple-choice knapsack problem, solved exactly.

Layer after layer, all totals (cost, error) of the layers so far are kept that no other total beats: it would have to be
no greater in both. A float64 sum that grows in one term never falls, so that a total that is beaten stays beaten
whatever follows: this holds for sums as they are rounded, not only for exact ones.

With a budget, a total goes, too, if it cannot lead to anything better than what is known to be possible. This and the
bound come from the lower convex hulls of the layers (the linear relaxation [1]_): their edges, the steepest first, are
the best way to lower the error of the layers that follow. With a part of the last edge that is the bound, without it
something possible.

References
----------
.. [1] D. Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", European Journal of Operational
   Research 83, 1995.
"""

import numbers

import numpy as np

from . import _arguments as arguments
from . import _core

MOST_TOTALS = 2**20  # kept after a layer
ROUNDING = 4 * np.finfo(np.float64).eps  # of a sum, for each of its terms


@_core.in_default_floating_mode
def allocate(errors, costs, budget, *, gap=0.0):
    """The candidate of each layer with which the total error is least and the total cost within a budget.

    Parameters
    ----------
    errors, costs : sequence of float sequence
        [layers][candidates], >= 0 and finite; layers may have different numbers of candidates, at least one.
    budget : float
        What costs may add up to.
    gap : float, default 0.0
        Below 1: such a part of the error it may be above the least, which makes hard problems easy.

    Returns
    -------
    list of int
        The number of a candidate for each layer.

    Raises
    ------
    ValueError
        Not even the cheapest candidates are within the budget (the message says what they cost), the problem is too
        hard for this gap, or an argument is not as said above.

    Notes
    -----
    With ``gap=0`` the total error is the least that there is, as float64 sums in the order of the layers, and of all
    allocations with this error it is one of the least cost; always the same one. Integers and their sums are exact in
    float64 up to 2**53. The problem is NP-hard: 200 layers of 8 candidates take about a second, but totals that differ
    in cost and not in what they are worth cannot be told apart early. With more than 2**20 that count after a layer the
    call gives up, and says so.

    Examples
    --------
    >>> from qkernels.mixed import allocate
    >>> allocate(errors=[[9, 4, 1], [8, 2, 1]], costs=[[2, 4, 8], [2, 4, 8]], budget=10)
    [1, 1]
    """
    layers = _checked_layers(errors, costs)
    budget = _checked_number(budget, "budget", 0, np.inf)
    gap = _checked_number(gap, "gap", 0, 1)
    least = total([choices.costs[0] for choices in layers])
    if least > budget:
        raise ValueError(f"budget: got {budget:g}, takes at least {least:.17g}, the cost of the cheapest candidates")
    rest = Rest(layers, budget)
    totals = Totals()
    for choices in layers:
        rest.drop_layer()
        totals.extend(choices, lambda costs, errors: rest.is_promising(costs, errors, gap))
    return totals.path(-1)


@_core.in_default_floating_mode
def frontier(errors, costs, budgets=None, *, gap=0.0):
    """The allocations of which none is better than another in both total cost and total error.

    Parameters
    ----------
    errors, costs : sequence of float sequence
        As `allocate` takes them.
    budgets : int or sequence of float, optional
        Only those that `allocate` gives for these budgets, or for so many evenly spaced ones from the least total cost
        to the greatest. None: all; there may be very many.
    gap : float, default 0.0
        See `allocate`; only with budgets.

    Returns
    -------
    costs, errors : float64 ndarray
        [P], of the allocations, by rising cost and falling error.
    allocations : list of list of int
        [P][layers], the numbers of the candidates.

    Raises
    ------
    ValueError
        As `allocate`; without budgets also if more than 2**20 allocations remain.

    Examples
    --------
    >>> from qkernels.mixed import frontier
    >>> frontier(errors=[[9, 4, 1], [8, 2, 1]], costs=[[2, 4, 8], [2, 4, 8]], budgets=[7, 10])
    (array([6., 8.]), array([11.,  6.]), [[0, 1], [1, 1]])
    """
    layers = _checked_layers(errors, costs)
    if budgets is None:
        totals = Totals()
        for choices in layers:
            totals.extend(choices)
        return totals.costs, totals.errors, [totals.path(i) for i in range(len(totals.costs))]
    if np.ndim(budgets) == 0:
        count = arguments.scalar(budgets, "budgets", 1, 2**20)
        budgets = np.linspace(*(total([choices.costs[end] for choices in layers]) for end in (0, -1)), count)
    allocations = [allocate(errors, costs, budget, gap=gap) for budget in budgets]
    totals = [np.array([total([row[i] for row, i in zip(table, allocation, strict=True)])
                        for allocation in allocations]) for table in (costs, errors)]
    kept = unbeaten(*totals)  # of equal ones one
    return totals[0][kept], totals[1][kept], [allocations[i] for i in kept]


def total(values):
    """The float64 sum in the order of the values."""
    return float(np.cumsum([0.0, *values])[-1])


class Choices:
    """The candidates of a layer that no other one beats: by rising costs and falling errors."""

    def __init__(self, errors, costs):
        self.candidates = unbeaten(costs, errors)
        self.costs, self.errors = costs[self.candidates], errors[self.candidates]

    def hull(self):
        """The indices of the corners of the lower convex hull of (cost, error): edges from one to the next are less and
        less steep."""
        corners, slopes = [0], [-np.inf]
        for i in range(1, len(self.costs)):
            while corners and (slope := self._slope(corners[-1], i)) <= slopes[-1]:
                corners.pop()
                slopes.pop()
            corners.append(i)
            slopes.append(slope)
        return np.array(corners), np.array(slopes[1:])

    def _slope(self, i, j):
        return (self.errors[j] - self.errors[i]) / (self.costs[j] - self.costs[i])


class Totals:
    """Of all allocations to the layers so far the totals that no other one beats, by rising costs and falling errors.

    Attributes
    ----------
    costs, errors : float64 ndarray
    """

    def __init__(self):
        self.costs = self.errors = np.zeros(1)
        self._steps = []  # for each layer: where each total came from, and by which candidate

    def extend(self, choices, is_promising=None):
        """Add a layer; of the new totals those that is_promising(costs, errors), a mask, is true of."""
        costs, errors = (np.add.outer(own, so_far).ravel()
                         for own, so_far in [(choices.costs, self.costs), (choices.errors, self.errors)])
        kept = np.arange(len(costs)) if is_promising is None else np.flatnonzero(is_promising(costs, errors))
        kept = kept[unbeaten(costs[kept], errors[kept])]
        if len(kept) > MOST_TOTALS:
            raise ValueError(f"costs: {len(kept)} allocations to the first {len(self._steps) + 1} layers may be best, "
                             f"takes {MOST_TOTALS}; a budget and a greater gap make them fewer")
        choice, origin = np.divmod(kept, len(self.costs))
        self._steps.append((origin.astype(np.int32), choices.candidates[choice]))
        self.costs, self.errors = costs[kept], errors[kept]

    def path(self, i):
        """The candidates that led to the i-th total."""
        path = []
        for origins, candidates in reversed(self._steps):
            path.append(int(candidates[i]))
            i = origins[i]
        return path[::-1]


class Rest:
    """The layers that follow, and what the budget is worth there."""

    def __init__(self, layers, budget):
        self._layers, self._layer, self._budget = layers, 0, budget
        hulls = [choices.hull() for choices in layers]
        layer_of = np.repeat(np.arange(len(layers)), [len(slopes) for _, slopes in hulls])
        edges = np.concatenate([np.zeros((0, 2)), *(
            np.diff([choices.costs[corners], choices.errors[corners]]).T
            for choices, (corners, _) in zip(layers, hulls, strict=True))])
        order = np.argsort(np.concatenate([[], *(slopes for _, slopes in hulls)]), kind="stable")
        self._layer_of, self._edges = layer_of[order], edges[order]
        terms = ROUNDING * (len(layers) + len(edges))
        self._cost_rounding = terms * total([choices.costs.max() for choices in layers])
        self._error_rounding = terms * total([choices.errors.max() for choices in layers])

    def drop_layer(self):
        """Take the first of the layers away."""
        self._layer += 1
        layers = self._layers[self._layer :]
        if not layers:
            self._cost_rounding = 0
        start = [total([choices.costs[0] for choices in layers]), total([choices.errors[0] for choices in layers])]
        edges = self._edges[self._layer_of >= self._layer]
        self._costs, self._errors = np.cumsum(np.concatenate([[start], edges]), axis=0).T

    def is_promising(self, costs, errors, gap):
        """A mask: of those totals that may lead to an allocation within the budget, and to one that is better by `gap`
        than what is known to be possible; or that lead to this."""
        left = self._budget - costs
        bound = errors + np.interp(left + self._cost_rounding, self._costs, self._errors)
        taken = np.searchsorted(self._costs, left - self._cost_rounding, side="right") - 1
        possible = np.where(taken >= 0, errors + self._errors[taken], np.inf)
        best = possible.min()
        is_better = bound <= (1 - gap) * best + self._error_rounding
        return (left >= self._costs[0] - self._cost_rounding) & (is_better | (possible == best))


def unbeaten(costs, errors):
    """The indices of the points that no other is no greater than in both, by rising costs; of equal ones the first."""
    order = np.lexsort((errors, costs))
    sorted_errors = errors[order]
    before = np.minimum.accumulate(np.concatenate([[np.inf], sorted_errors]))[:-1]
    return order[sorted_errors < before]


def _checked_layers(errors, costs):
    """Choices of each layer."""
    if len(errors) != len(costs):
        raise ValueError(f"costs: got {len(costs)} layers, errors has {len(errors)}")
    layers = []
    for i, pair in enumerate(zip(errors, costs, strict=True)):
        columns = []
        for name, values in zip(("errors", "costs"), pair, strict=True):
            values = arguments.parameter(values, name)
            if values.dtype.kind not in "iuf" and values.size:
                raise TypeError(f"{name}: of layer {i}: got dtype {values.dtype}, takes numbers")
            values = values.astype(np.float64)
            if values.ndim != 1 or not values.size or not (np.isfinite(values) & (values >= 0)).all():
                raise ValueError(f"{name}: of layer {i}: takes one or more numbers, finite and >= 0")
            columns.append(values)
        if len(columns[0]) != len(columns[1]):
            raise ValueError(f"costs: of layer {i}: got {len(columns[1])} candidates, errors has {len(columns[0])}")
        layers.append(Choices(*columns))
    return layers


def _checked_number(x, name, low, below):
    if not isinstance(x, numbers.Real) or isinstance(x, bool):
        raise TypeError(f"{name}: got {x!r}, takes one number")
    if not low <= x < below:
        raise ValueError(f"{name}: got {x}, takes {low} or more, and less than {below}")
    return float(x)
