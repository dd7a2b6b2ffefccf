"""Estimates with 95% intervals, when rows share goals.

Rows of one goal (the same task under several attacks) are not independent, so an interval counts
goals. That of a share is in closed form: Wilson's (1927) on the effective number of rows, the number of
independent rows that would vary as much as the goals do (Kish 1965; Korn and Graubard 1998 for rare
events), with Student's quantile for so many goals. Where no row differs each goal counts as one. So it
has a width when all or no rows are hits, where a percentile bootstrap has none. The interval of a
difference is put together from those of its two shares (Newcombe 1998, method 10; Zou and Donner 2008).
What is no share is bootstrapped over goals.
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
    """A number with its 95% interval.

    Attributes:
        value: the estimate; NaN when nothing could be counted.
        low: lower end of the interval.
        high: upper end of the interval.
        n: rows the estimate is over.
        groups: goals they belong to.
    """

    value: float
    low: float
    high: float
    n: int
    groups: int


#: Of no rows.
NOTHING = Estimate(float("nan"), float("nan"), float("nan"), 0, 0)


@dataclass(frozen=True)
class Share:
    """A number in [0, 1] that is a mean over rows, with what each goal adds to its error.

    Attributes:
        value: the mean.
        pulls: ``[G]`` how far each goal pulls the mean from where it would be; they sum to 0.
        n: rows.
        fewest: goals that speak for the value; for a comparison of two groups, of the smaller one.
    """

    value: float
    pulls: NDArray[np.float64]
    n: int
    fewest: int

    def estimate(self) -> Estimate:
        """The share with Wilson's interval on the effective number of rows."""
        spread = _variance(self.pulls)
        p = self.value
        rows = min(self.n, p * (1 - p) / spread) if spread > 0 else self.fewest
        z = float(stdtrit(max(self.fewest - 1, 1), 0.975))
        around = z * z / rows
        middle = (p + around / 2) / (1 + around)
        width = sqrt(around * (p * (1 - p) + around / 4)) / (1 + around)
        # Rounding would let an end pass the value that it belongs to.
        low, high = min(max(0.0, middle - width), p), max(min(1.0, middle + width), p)
        return Estimate(p, low, high, self.n, len(self.pulls))

    def minus(self, other: Share) -> Estimate:
        """The difference to a share of the same goals, in [-1, 1]."""
        a, b = self.estimate(), other.estimate()
        both = sqrt(_variance(self.pulls) * _variance(other.pulls))
        shared = float(self.pulls @ other.pulls) * _small(len(self.pulls))
        together = shared / both if both > 0 else 0.0
        value = a.value - b.value
        low = value - _joined(a.value - a.low, b.high - b.value, together)
        high = value + _joined(a.high - a.value, b.value - b.low, together)
        return Estimate(value, max(-1.0, low), min(1.0, high), self.n, a.groups)


def share(values: NDArray[np.float64], goals: Sequence[Hashable] | None = None) -> Share:
    """The mean of values ``[N]`` in [0, 1], N > 0.

    Args:
        values: 0 and 1 where hits are counted.
        goals: ``[N]`` goal of each row; each row its own when None.
    """
    codes = goal_codes(goals, len(values))
    mean = float(values.mean())
    pulls = np.bincount(codes, (values - mean) / len(values)).astype(np.float64)
    return Share(mean, pulls, len(values), len(pulls))


def apart(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two estimates as if of different goals.

    Where they share some, and so vary together, the interval is rather too wide than too narrow.
    """
    value = one.value - other.value
    low = value - _joined(one.value - one.low, other.high - other.value, 0.0)
    high = value + _joined(one.high - one.value, other.value - other.low, 0.0)
    return Estimate(value, low, high, one.n + other.n, one.groups + other.groups)


def goal_codes(goals: Sequence[Hashable] | None, n: int) -> NDArray[np.int64]:
    """``[n]`` number of each row's goal, from 0; each row its own when None.

    Raises:
        InputError: as many goals as rows are needed.
    """
    if goals is None:
        return np.arange(n)
    if len(goals) != n:
        raise InputError(f"{len(goals)} goals for {n} rows. Give one goal a row.")
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
    """Estimate a statistic of rows with its percentile interval, resampling whole goals.

    Args:
        statistic: row numbers ``[K]`` -> value; NaN where it is not defined.
        n: number of rows.
        goals: ``[n]`` goal of each row; each row its own when None.
        draws: resamples.
        seed: of the resampling.

    Raises:
        InputError: as many goals as rows are needed.
    """
    codes = goal_codes(goals, n)
    if n == 0:
        return NOTHING
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    value = statistic(np.arange(n))
    generator = np.random.default_rng(seed)
    picks = generator.integers(len(members), size=(draws, len(members)))
    found = np.array([statistic(np.concatenate([members[g] for g in pick])) for pick in picks])
    found = found[~np.isnan(found)]
    low, high = np.percentile(found, [2.5, 97.5]) if len(found) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high), n, len(members))


def _variance(pulls: NDArray[np.float64]) -> float:
    """Variance of the mean that these goals pull at; 0 where they do not pull."""
    found = float(pulls @ pulls) * _small(len(pulls))
    # The mean of equal values may be off by a rounding.
    return found if found > 1e-20 else 0.0


def _small(groups: int) -> float:
    """Makes up for the mean that was taken off the same few goals."""
    return groups / max(groups - 1, 1)


def _joined(first: float, second: float, together: float) -> float:
    """Distance to an end of a difference from those of its two parts, which vary together so far."""
    return sqrt(max(0.0, first**2 + second**2 - 2 * together * first * second))
