"""Estimates with 95% intervals for rows that share goals.

Rows of one goal (the same task under several attacks) are not independent, so intervals count goals.

- A share: Wilson's interval (1927) with the effective number of rows, the number of independent rows
  with the same variance (Kish 1965; Korn and Graubard 1998 for rare events), and Student's quantile
  for the number of goals. If all rows are equal, each goal counts as one row. So the interval has a
  width even if all or no rows are hits, unlike a percentile bootstrap.
- A difference of two shares: combined from their intervals (Newcombe 1998, method 10; Zou and Donner
  2008).
- Anything else: bootstrap over goals.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from demur.errors import InputError

Statistic = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, from ``n`` rows of ``groups`` goals; NaN without rows."""

    value: float
    low: float
    high: float
    n: int
    groups: int


#: The estimate without rows.
NOTHING = Estimate(float("nan"), float("nan"), float("nan"), 0, 0)


@dataclass(frozen=True)
class Share:
    """A mean over rows in [0, 1], with the influence of each goal.

    Attributes:
        value: the mean.
        influence: ``[G]`` each goal's summed deviation from the mean, divided by N; they sum to 0.
        n: number of rows.
        fewest: number of goals; for a comparison of two groups, of the smaller group.
    """

    value: float
    influence: NDArray[np.float64]
    n: int
    fewest: int

    def estimate(self) -> Estimate:
        """The share with Wilson's interval for the effective number of rows."""
        spread = _variance(self.influence)
        p = self.value
        rows = min(self.n, p * (1 - p) / spread) if spread > 0 else self.fewest
        z = float(stdtrit(max(self.fewest - 1, 1), 0.975))
        around = z * z / rows
        middle = (p + around / 2) / (1 + around)
        width = sqrt(around * (p * (1 - p) + around / 4)) / (1 + around)
        # Rounding must not move an end past the value.
        low, high = min(max(0.0, middle - width), p), max(min(1.0, middle + width), p)
        return Estimate(p, low, high, self.n, len(self.influence))

    def minus(self, other: Share) -> Estimate:
        """This share minus another share of the same goals, in [-1, 1]."""
        a, b = self.estimate(), other.estimate()
        both = sqrt(_variance(self.influence) * _variance(other.influence))
        shared = float(self.influence @ other.influence) * _bessel(len(self.influence))
        found = apart(a, b, correlation=shared / both if both > 0 else 0.0)
        low, high = max(-1.0, found.low), min(1.0, found.high)
        return Estimate(found.value, low, high, self.n, a.groups)


def share(values: NDArray[np.float64], goals: Sequence[Hashable] | None = None) -> Share:
    """The mean of values ``[N]`` in [0, 1], N > 0; ``goals`` as for ``goal_codes``."""
    codes = goal_codes(goals, len(values))
    mean = float(values.mean())
    influence = np.bincount(codes, (values - mean) / len(values)).astype(np.float64)
    return Share(mean, influence, len(values), len(influence))


def apart(one: Estimate, other: Estimate, *, correlation: float = 0.0) -> Estimate:
    """Difference of two estimates, by default treated as independent.

    If they share goals and so are positively correlated, the interval is too wide, not too narrow.
    """

    def combined(first: float, second: float) -> float:
        return sqrt(max(0.0, first**2 + second**2 - 2 * correlation * first * second))

    value = one.value - other.value
    low = value - combined(one.value - one.low, other.high - other.value)
    high = value + combined(one.high - one.value, other.value - other.low)
    return Estimate(value, low, high, one.n + other.n, one.groups + other.groups)


def goal_codes(goals: Sequence[Hashable] | None, n: int) -> NDArray[np.int64]:
    """``[n]`` goal numbers of the rows, from 0; None gives every row its own.

    Raises:
        InputError: the number of goals is not n.
    """
    if goals is None:
        return np.arange(n)
    if len(goals) != n:
        raise InputError(f"{len(goals)} goals for {n} rows. Give one goal per row.")
    found: NDArray[np.int64] = np.unique([str(g) for g in goals], return_inverse=True)[1]
    return found


def bootstrap(
    statistic: Statistic,
    n: int,
    goals: Sequence[Hashable] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimate a statistic of ``n`` rows with its percentile interval, resampling whole goals.

    The statistic maps row numbers ``[K]`` to a value, NaN where it is undefined. ``goals`` as for
    ``goal_codes``.

    Raises:
        InputError: the number of goals is not n.
    """
    codes = goal_codes(goals, n)
    if n == 0:
        return NOTHING
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    value = statistic(np.arange(n))
    picks = np.random.default_rng(seed).integers(len(members), size=(draws, len(members)))
    found = np.array([statistic(np.concatenate([members[g] for g in pick])) for pick in picks])
    found = found[~np.isnan(found)]
    low, high = np.percentile(found, [2.5, 97.5]) if len(found) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), n, len(members))


def _variance(influence: NDArray[np.float64]) -> float:
    """Variance of the mean with these goals; exactly 0 if all values are equal."""
    found = float(influence @ influence) * _bessel(len(influence))
    return found if found > 1e-20 else 0.0  # equal values may leave a rounding error


def _bessel(groups: int) -> float:
    """Bessel's correction G / (G - 1)."""
    return groups / max(groups - 1, 1)
