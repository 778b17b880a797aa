"""The allocator: equal to brute force bit for bit, to SciPy's milp, and to the theory of Gaussian sources."""

import functools
import itertools

import cases
import numpy as np
import pytest
from cases import raises

from qkernels import allocation
from qkernels.allocation import allocate, frontier

pytestmark = [pytest.mark.any_isa, pytest.mark.filterwarnings("error")]

KINDS = {  # of numbers, by what makes them special
    "few integers": lambda seed, shape: cases.ints(seed, shape, 0, 3, np.float64),
    "integers": lambda seed, shape: cases.ints(seed, shape, 0, 10**6, np.float64),
    "floats": lambda seed, shape: cases.ints(seed, shape, 0, 2**53) * 2.0**-53,
    "rounded": lambda seed, shape: cases.ints(seed, shape, 0, 2) * 1e-3 + cases.ints(seed + 1, shape, 0, 1) * 0.1,
    "far apart": lambda seed, shape: 2.0 ** cases.ints(seed, shape, -60, 60),
}


def totals(table, allocations):
    """The sum of each allocation, in the order of the layers."""
    so_far = np.zeros(len(allocations))
    for row, choice in zip(table, allocations.T):
        so_far = so_far + np.asarray(row, np.float64)[choice]
    return so_far


def everything(errors):
    """All allocations."""
    return all_of_counts(tuple(map(len, errors)))


@functools.cache
def all_of_counts(counts):
    return np.array([*itertools.product(*map(range, counts))], np.int64)


def check(errors, costs, parts):
    """`allocate` gives the least error of all allocations, and of those with this error the least cost.

    The budgets are total costs: the cheapest for a part of 0, the dearest for 1.
    """
    allocations = everything(errors)
    total_errors, total_costs = totals(errors, allocations), totals(costs, allocations)
    reachable = np.unique(total_costs)
    for part in parts:
        budget = reachable[int(part * (len(reachable) - 1))]
        fits = total_costs <= budget
        least = total_errors[fits].min()
        got = np.array([allocate(errors, costs, budget)])
        assert totals(errors, got)[0] == least
        assert totals(costs, got)[0] == total_costs[fits & (total_errors == least)].min()


@pytest.mark.parametrize("cost_kind", KINDS)
@pytest.mark.parametrize("error_kind", KINDS)
def test_brute_force_of_ten_layers(error_kind, cost_kind):
    """3^10 allocations, with budgets from the tightest to one that takes everything."""
    check(KINDS[error_kind](1, (10, 3)), KINDS[cost_kind](2, (10, 3)), (0, 0.001, 0.1, 0.5, 0.9, 1))


@pytest.mark.parametrize("cost_kind", KINDS)
@pytest.mark.parametrize("error_kind", KINDS)
def test_brute_force_of_ragged_layers(error_kind, cost_kind):
    for seed in range(6):
        counts = [*cases.ints(seed, (5,), 1, 5)]
        errors = [KINDS[error_kind](100 * seed + i, (n,)) for i, n in enumerate(counts)]
        costs = [KINDS[cost_kind](100 * seed + 50 + i, (n,)) for i, n in enumerate(counts)]
        check(errors, costs, (0.05, 0.3, 0.6, 0.9))


@pytest.mark.parametrize("seed", range(2, 4))
def test_brute_force_where_bounds_round(seed):
    """Errors differ by so little that sums in another order are others."""
    errors = 100 + cases.ints(seed, (10, 3), 0, 50) * 2.0**-46
    check(errors, cases.ints(seed + 1, (10, 3), 1, 30), np.arange(0, 1, 0.03))


def realistic(seed, layers):
    """Errors that fall fourfold a bit, more or less, and bytes of layers of all sizes."""
    bits = np.array([1.25, 2.25, 2.5, 3.25, 4.125, 4.25, 4.5, 8.06])
    costs = np.rint(cases.ints(seed, (layers, 1), 10**5, 5 * 10**7) * bits / 8)
    spread = cases.ints(seed + 1, (layers, 1), -300, 300) + cases.ints(seed + 2, (layers, 8), -50, 50)
    return 2.0 ** (spread / 100) * 4.0**-bits, costs


def solved_by_milp(errors, costs, budget):
    """The least error that SciPy finds."""
    optimize = pytest.importorskip("scipy.optimize")
    layers, candidates = errors.shape
    once = np.kron(np.eye(layers), np.ones(candidates))
    scale = costs.max()
    done = optimize.milp(
        errors.ravel() / errors.max(), integrality=np.ones(errors.size), bounds=optimize.Bounds(0, 1),
        constraints=[optimize.LinearConstraint(once, 1, 1),
                     optimize.LinearConstraint(costs.ravel() / scale, -np.inf, budget / scale)],
        options={"mip_rel_gap": 0})
    assert done.success
    return (errors.ravel() * np.rint(done.x)).sum()


@pytest.mark.parametrize("seed", range(6))
def test_milp(seed):
    errors, costs = realistic(seed, 30) if seed % 2 else (
        KINDS["floats"](seed, (40, 5)), KINDS["integers"](seed + 1, (40, 5)))
    low, high = costs.min(axis=1).sum(), costs.max(axis=1).sum()
    for part in (0.1, 0.4, 0.7):
        budget = np.rint(low + part * (high - low))
        got = np.array([allocate(errors, costs, budget)])
        assert totals(costs, got)[0] <= budget
        # milp holds constraints to 1e-6 or so, and may end within that of the optimum
        np.testing.assert_allclose(totals(errors, got)[0], solved_by_milp(errors, costs, budget), rtol=1e-7)


def test_large_problem():
    """200 layers of 8 candidates: the bound of the linear relaxation leaves little room."""
    errors, costs = realistic(11, 200)
    budget = 0.5 * costs.max(axis=1).sum()
    got = np.array([allocate(errors, costs, budget)])
    relaxed = np.array([allocate(errors, costs, budget, gap=0.01)])
    least, near = totals(errors, got)[0], totals(errors, relaxed)[0]
    assert totals(costs, got)[0] <= budget and totals(costs, relaxed)[0] <= budget
    assert least <= near <= least / 0.99


def test_gap_makes_hard_problems_easy(monkeypatch):
    """Errors that fall by what costs rise: nothing tells totals apart before the end."""
    monkeypatch.setattr(allocation, "MOST_TOTALS", 2**14)
    costs = cases.ints(1, (60, 8), 1, 10**9, np.float64)
    errors, budget = 2e9 - costs, np.rint(costs.mean(axis=1).sum())
    assert "gap" in raises(ValueError, "costs", allocate, errors, costs, budget)
    got = np.array([allocate(errors, costs, budget, gap=1e-6)])
    least = 60 * 2e9 - budget  # at least
    assert totals(costs, got)[0] <= budget and totals(errors, got)[0] <= least / (1 - 1e-6)
    assert "budget" in raises(ValueError, "costs", frontier, errors, costs)


def test_gaussian_layers_get_the_bits_of_reverse_water_filling():
    """D(b) = w s^2 4^-b of each: b = mean + log2(w s^2 / geometric mean) / 2."""
    log_variances = 2 * cases.ints(5, (24,), -3, 3)
    variances = 2.0**log_variances
    for mean in (4, 5):
        best = mean + (log_variances - log_variances.mean()) / 2
        bits = np.arange(10)
        got = np.array(allocate(variances[:, None] * 4.0**-bits, np.tile(bits, (24, 1)), 24 * mean))
        assert got.sum() == 24 * mean and np.abs(got - best).max() < 1
    whole = np.array([0, 2, -2, 4, -4, 0, 6, -6])  # here whole bits are the optimum
    got = allocate(2.0 ** whole[:, None] * 4.0**-bits, np.tile(bits, (8, 1)), 8 * 4)
    assert got == [*(4 + whole // 2)]


def test_the_frontier_is_complete():
    """Every allocation is beaten by, or equal to, one of the frontier, of which none beats another."""
    for kind in KINDS:
        errors, costs = KINDS[kind](21, (7, 3)), KINDS[kind](22, (7, 3))
        found_costs, found_errors, found = frontier(errors, costs)
        assert (np.diff(found_costs) > 0).all() and (np.diff(found_errors) < 0).all()
        np.testing.assert_array_equal(totals(costs, np.array(found)), found_costs)
        np.testing.assert_array_equal(totals(errors, np.array(found)), found_errors)
        allocations = everything(errors)
        place = np.searchsorted(found_costs, totals(costs, allocations), side="right") - 1
        assert (place >= 0).all() and (found_errors[place] <= totals(errors, allocations)).all()


def test_frontier_of_budgets():
    errors, costs = KINDS["floats"](31, (6, 4)), KINDS["integers"](32, (6, 4))
    all_costs, all_errors, _ = frontier(errors, costs)
    some_costs, some_errors, found = frontier(errors, costs, 12)
    assert 5 < len(found) <= 12
    assert {*zip(some_costs, some_errors)} <= {*zip(all_costs, all_errors)}
    assert (some_costs[0], some_costs[-1]) == (all_costs[0], all_costs[-1])
    one = frontier(errors, costs, [all_costs[7] + 0.5])
    assert (one[0][0], one[1][0]) == (all_costs[7], all_errors[7])
    assert one[2] == [allocate(errors, costs, all_costs[7])]


def test_no_layers_and_single_candidates():
    assert allocate([], [], 0) == []
    assert allocate([[5]], [[3]], 3) == [0]
    assert allocate([[5, 5], [0, 0]], [[3, 2], [0, 0]], 100) == [1, 0]
    assert [part.tolist() for part in frontier([], [])[:2]] == [[0], [0]]


def test_bad_input():
    assert "takes at least 3," in raises(ValueError, "budget", allocate, [[1, 2], [3]], [[1, 5], [2]], 2.5)
    for budget in (-1, np.nan, np.inf):
        raises(ValueError, "budget", allocate, [[1]], [[1]], budget)
    for budget in ("3", None, True, [3]):
        raises(TypeError, "budget", allocate, [[1]], [[1]], budget)
    for gap in (-0.1, 1, np.nan):
        raises(ValueError, "gap", allocate, [[1]], [[1]], 1, gap=gap)
    for bad in ([], [np.nan], [np.inf], [-1], [[1]], 1):
        raises(ValueError, "errors", allocate, [[0], bad], [[0], [1]], 1)
        raises(ValueError, "costs", allocate, [[0], [1]], [[0], bad], 1)
    for bad in (["1"], [None], [True], [1j]):
        raises(TypeError, "errors", allocate, [[0], bad], [[0], [1]], 1)
    raises(ValueError, "costs", allocate, [[1]], [[1], [2]], 1)
    raises(ValueError, "costs", allocate, [[1, 2]], [[1]], 1)
    raises(ValueError, "budgets", frontier, [[1]], [[1]], 0)
