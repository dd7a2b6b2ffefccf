"""The drift martingale: small while traffic is exchangeable, large once it is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, kstest

import guarded
from demur.guard.drift import KEPT, Drift


def test_seldom_large_under_exchangeability() -> None:
    """Doob: 300 scores reach 6,000 with probability at most 1/20, ties included."""
    generator, reached, runs = np.random.default_rng(0), 0, 300
    for _ in range(runs):
        scores = generator.normal(size=400).round(1)
        drift = Drift(scores[:100], generator=generator)
        reached += any(drift.observe(score) and drift.value >= 6000 for score in scores[100:])
    assert reached <= binom.ppf(0.999, runs, 1 / 20)


def test_n_scores_bring_it_to_n_on_average() -> None:
    generator, values = np.random.default_rng(5), []
    for _ in range(2000):
        drift = Drift(generator.normal(size=20), generator=generator)
        for score in generator.normal(size=8):
            drift.observe(score)
        values.append(drift.value)
    assert abs(np.mean(values) - 8) < 4 * np.std(values) / 2000**0.5


def test_does_not_age_and_stays_small() -> None:
    """After a long quiet time a shift shows as soon as at the beginning."""
    generator, needed = np.random.default_rng(6), []
    for quiet in (0, 30_000):
        drift = Drift(generator.normal(size=600), generator=generator)
        for score in generator.normal(size=quiet):
            drift.observe(score)
        count = 0
        while drift.value < 1e6:
            drift.observe(generator.normal() + 1)
            count += 1
        needed.append(count)
        assert len(drift._scores) <= KEPT
    assert needed[1] < 2 * needed[0] < 200


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
    assert drift.value > 1000


def test_same_generator_same_value() -> None:
    values = []
    for _ in range(2):
        drift = Drift([0.0, 0.0], generator=np.random.default_rng(4))
        values.append([drift.observe(0.0) for _ in range(5)])
    assert values[0] == values[1]
    assert len(set(values[0])) == 5
