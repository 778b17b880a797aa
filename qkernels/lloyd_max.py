"""Lloyd-Max: the levels of the least squared error for a density."""

import numpy as np

# Densities of mean 0 and variance 1, and the range outside of which nothing is left of them.
DENSITIES = {
    "normal": (lambda x: np.exp(x * x * -0.5), (-12.0, 12.0)),
    "laplace": (lambda x: np.exp(np.abs(x) * -np.sqrt(2.0)), (-30.0, 30.0)),
    "uniform": (np.ones_like, (-np.sqrt(3.0), np.sqrt(3.0))),
}
PANELS = 2**14  # of a density's range, in each of which it is integrated by NODES points of Gauss and Legendre
NODES = 5
TOLERANCE, ITERATIONS = 1e-10, 20_000  # of Lloyd-Max: the last step of a level, as a part of the range
ROUNDING = 4 * np.finfo(np.float64).eps  # of a level, as a part of its size: it need not rest more exactly


def lloyd_max(density, low, high, count):
    """The levels, float64, ascending: each the centroid of its bucket, whose ends are the middles between levels."""
    moments = Moments(density, low, high)
    levels = moments.best_of_many(count)
    least_step = TOLERANCE * (high - low) + ROUNDING * max(abs(low), abs(high))
    for _ in range(ITERATIONS):
        centroids = moments.centroids(levels)
        step = np.abs(centroids - levels).max()
        levels = centroids
        if step <= least_step:
            break
    return levels


class Moments:
    """Integrals of p(x) and x p(x) from the low end of a density's support."""

    def __init__(self, density, low, high):
        self.density, self.low, self.high, self.exponent = density, low, high, 0
        self.width = (high - low) / PANELS
        self.nodes, self.shares = np.polynomial.legendre.leggauss(NODES)
        self.edges = np.linspace(low, high, PANELS + 1)
        self.exponent = np.frexp(self._density_at(self.edges).max())[1]  # so that no sum overflows or is lost
        panels = self._integrate(self.edges[:-1], self.edges[1:])
        if not panels[0].sum() > 0:
            raise ValueError("density: is 0 everywhere in the support")
        self.sums = np.concatenate([np.zeros((2, 1)), np.cumsum(panels, axis=1)], axis=1)

    def _density_at(self, x):
        """Over a power of two near its peak."""
        p = np.asarray(self.density(x), np.float64)
        if p.shape != x.shape or not np.isfinite(p).all() or (p < 0).any():
            raise ValueError("density: must give a finite number >= 0 for each value")
        return np.ldexp(p, -self.exponent)

    def _integrate(self, start, end):
        half = (end - start)[:, None] / 2
        x = start[:, None] + half * (self.nodes + 1)
        p = self._density_at(x)
        return np.stack([(part * self.shares * half).sum(axis=1) for part in (p, p * x)])

    def _up_to(self, t):
        panel = np.clip((t - self.low) / self.width, 0, PANELS - 1).astype(np.intp)
        return self.sums[:, panel] + self._integrate(self.edges[panel], t)

    def centroids(self, levels):
        """Of the buckets of these levels; a level whose bucket holds nothing stays."""
        ends = np.concatenate([[self.low], (levels[:-1] + levels[1:]) / 2, [self.high]])
        mass, moment = np.diff(self._up_to(ends), axis=1)
        return np.where(mass > 0, moment / np.where(mass > 0, mass, 1), levels)

    def best_of_many(self, count):
        """The quantiles of the cube root of the density (P. F. Panter and W. Dite, 1951)."""
        share = np.cbrt(self.density((self.edges[:-1] + self.edges[1:]) / 2))
        share = np.concatenate([[0], np.cumsum(share)])
        return np.interp((np.arange(count) + 0.5) / count, share / share[-1], self.edges)
