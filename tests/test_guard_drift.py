"""The drift martingale: small while traffic is exchangeable, large once it is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, kstest

import guarded
from demur.guard.drift import Drift


def test_seldom_large_under_exchangeability() -> None:
    """Ville: capital 20 is ever reached with probability at most 1/20, ties included."""
    generator, reached, runs = np.random.default_rng(0), 0, 300
    for _ in range(runs):
        scores = generator.normal(size=400).round(1)
        drift = Drift(scores[:100], generator=generator)
        reached += any(drift.observe(score) and drift.value >= 20 for score in scores[100:])
    assert reached <= binom.ppf(0.999, runs, 1 / 20)


def test_p_values_are_uniform() -> None:
    generator = np.random.default_rng(1)
    drift = Drift(generator.normal(size=50), generator=generator)
    assert kstest([drift.observe(s) for s in generator.normal(size=2000)], "uniform").pvalue > 1e-3


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_grows_under_shift(shift: float) -> None:
    generator = np.random.default_rng(2)
    drift = Drift(generator.normal(size=200), generator=generator)
    for score in generator.normal(size=150) + shift:
        drift.observe(score)
    assert drift.value > 1000


def test_grows_when_attacks_arrive() -> None:
    guard = guarded.guard()
    drift = Drift(guard.group("all").calibration, generator=np.random.default_rng(3))
    for score in guard.score(guarded.traced("test", "harmful", 40, attack="prefix_injection")):
        drift.observe(float(score))
    assert drift.value > 100


def test_same_generator_same_value() -> None:
    values = []
    for _ in range(2):
        drift = Drift([0.0, 0.0], generator=np.random.default_rng(4))
        values.append([drift.observe(0.0) for _ in range(5)])
    assert values[0] == values[1]
    assert len(set(values[0])) == 5
