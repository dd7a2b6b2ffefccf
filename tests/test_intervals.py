"""Intervals cover the truth about as often as they say, and never shrink to nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from demur import metrics
from demur.intervals import bootstrap
from demur.metrics import Estimate

SIMULATIONS = 300


def covered(truth: float, found: list[Estimate]) -> float:
    assert all(one.low <= one.value <= one.high for one in found)
    assert all(one.high > one.low for one in found)
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def correlated(
    generator: np.random.Generator, goals: NDArray[np.int64], alike: float = 0.3
) -> NDArray[np.float64]:
    """``[N]`` standard normal; two rows of one goal correlate by ``alike``."""
    shared = generator.normal(size=goals.max() + 1)[goals]
    found: NDArray[np.float64] = np.sqrt(alike) * shared
    return found + np.sqrt(1 - alike) * generator.normal(size=len(goals))


@pytest.mark.parametrize("each", [1, 5])
@pytest.mark.parametrize("goals", [12, 25, 60])
@pytest.mark.parametrize("truth", [0.02, 0.1, 0.3, 0.5])
def test_a_rate_is_covered(truth: float, goals: int, each: int) -> None:
    # A percentile bootstrap covers 0.21 of rates of .02 with 12 goals, and 0.76 of rates of .1.
    generator = np.random.default_rng([goals, each])
    of = np.repeat(np.arange(goals), each)
    found = [
        metrics.rate(correlated(generator, of) < ndtri(truth), of.tolist())
        for _ in range(SIMULATIONS)
    ]
    assert covered(truth, found) >= 0.88


@pytest.mark.parametrize("goals", [12, 60])
@pytest.mark.parametrize(("larger", "smaller"), [(0.02, 0.02), (0.3, 0.1), (0.5, 0.5)])
def test_a_difference_is_covered(larger: float, smaller: float, goals: int) -> None:
    generator = np.random.default_rng(goals)
    of = np.repeat(np.arange(goals), 5)

    def one() -> Estimate:
        alike = correlated(generator, of)
        pair = ((alike + generator.normal(size=len(of))) / np.sqrt(2) for _ in range(2))
        first, second = (x < ndtri(p) for x, p in zip(pair, (larger, smaller), strict=True))
        return metrics.difference(first, second, of.tolist())

    assert covered(larger - smaller, [one() for _ in range(SIMULATIONS)]) >= 0.91


@pytest.mark.parametrize("goals", [12, 40])
@pytest.mark.parametrize("truth", [0.5, 0.9, 0.998])
def test_an_auroc_is_covered(truth: float, goals: int) -> None:
    generator = np.random.default_rng(goals)
    benign, bad = np.repeat(np.arange(60), 3), np.repeat(np.arange(goals), 3)
    names = [f"b{i}" for i in benign] + [f"m{i}" for i in bad]
    lift = np.sqrt(2) * ndtri(truth)
    assert ndtr(lift / np.sqrt(2)) == pytest.approx(truth)
    found = [
        metrics.auroc(correlated(generator, benign), lift + correlated(generator, bad), names)
        for _ in range(SIMULATIONS)
    ]
    assert covered(truth, found) >= 0.91


def test_rows_of_one_goal_count_little_more_than_one() -> None:
    hits, goals = [True] * 100 + [False] * 100, [i // 20 for i in range(200)]
    alone, together = metrics.rate(hits), metrics.rate(hits, goals)
    assert together.groups == 10
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_rows_that_do_not_differ_still_leave_a_doubt() -> None:
    for hits, low, high in (([False] * 60, 0.0, 0.06), ([True] * 60, 0.94, 1.0)):
        found = metrics.rate(hits)
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    one_goal = metrics.rate([True] * 50, ["g"] * 50)
    assert one_goal.low < 0.1


def test_two_arms_that_never_differ_may_differ_a_little() -> None:
    hits = [True] * 6 + [False] * 6
    found = metrics.difference(hits, hits)
    assert found.value == 0
    assert -0.4 < found.low < -0.2
    assert found.high == pytest.approx(-found.low)


def test_a_paired_difference_of_aurocs_knows_that_the_rows_are_the_same() -> None:
    generator = np.random.default_rng(0)
    benign, bad = generator.normal(size=200), 1 + generator.normal(size=60)
    same = metrics.auroc_difference((benign, bad), (2 * benign, 2 * bad))
    assert (same.low, same.value, same.high) == pytest.approx((0, 0, 0), abs=0.02)
    other = metrics.auroc_difference((benign, bad), (-benign, -bad))
    assert 0.2 < other.low < other.value < other.high
    perfect = metrics.auroc_difference(([0.0] * 20, [1.0] * 20), ([0.0] * 20, [1.0] * 20))
    assert perfect.low < 0 < perfect.high


def test_a_bootstrap_resamples_goals() -> None:
    values = np.repeat([0.0, 1.0], 20)
    found = bootstrap(lambda rows: float(values[rows].mean()), 40, [0] * 20 + [1] * 20)
    assert (found.low, found.high, found.groups) == (0, 1, 2)
