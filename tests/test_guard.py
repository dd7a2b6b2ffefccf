"""SRI Guard: it finds what deviates, keeps its false-positive rate, and survives being saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

import demur
from demur.detectors.autoencoder import fit_autoencoder
from demur.errors import CalibrationError, FingerprintError, InputError, SignalError
from demur.guard import Guard, threshold_rank
from demur.metrics import auroc
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive
from demur.sri import Anchors


def benign(n: int, *, seed: int, steps: int = 16) -> NDArray[np.float32]:
    """Smooth, high signals with one random level each."""
    generator = np.random.default_rng(seed)
    level = generator.uniform(0.8, 1, size=(n, 1))
    return np.clip(level + generator.normal(0, 0.02, size=(n, steps)), 0, 1).astype(np.float32)


def hesitant(n: int, *, seed: int) -> NDArray[np.float32]:
    """Benign but for a dip in the middle."""
    values = benign(n, seed=seed)
    values[:, 6:9] -= 0.4
    return values


@pytest.fixture(scope="module")
def guard() -> Guard:
    return demur.fit_guard(benign(600, seed=0), benign(200, seed=1), alpha=0.05)


def test_finds_hesitation(guard: Guard) -> None:
    found = auroc(guard.score(benign(200, seed=2)), guard.score(hesitant(100, seed=3)))
    assert found.value > 0.95
    assert guard.flag(hesitant(100, seed=3)).mean() > 0.9


def test_false_positive_rate_holds_on_average() -> None:
    """Over many calibration sets the rate is at most alpha, within its exact binomial interval."""
    alpha, detector = 0.1, fit_autoencoder(benign(300, seed=0), epochs=20)
    scores = detector.score_signals(benign(60_000, seed=5))
    flagged = 0
    for group in scores.reshape(600, 100):
        calibration, one = np.sort(group[:99]), group[99]
        flagged += one > calibration[-threshold_rank(99, alpha)]
    assert flagged <= binom.ppf(0.999, 600, alpha)
    assert flagged >= binom.ppf(0.001, 600, alpha)


def test_pac_ranks_are_the_known_ones() -> None:
    for n, rank in ((299, 1), (473, 2), (628, 3), (913, 5)):
        assert threshold_rank(n, 0.01, method="pac") == rank
    for n, rank in ((472, 1), (627, 2), (912, 4)):
        assert threshold_rank(n, 0.01, method="pac") == rank
    with pytest.raises(CalibrationError, match="at least 299"):
        threshold_rank(298, 0.01, method="pac")


def test_conformal_ranks_and_p_values_agree(guard: Guard) -> None:
    assert threshold_rank(99, 0.01) == 1
    with pytest.raises(CalibrationError, match="at least 99 benign"):
        threshold_rank(98, 0.01)
    scores = guard.score(np.concatenate([benign(50, seed=7), hesitant(50, seed=8)]))
    np.testing.assert_array_equal(guard.p_value(scores) <= guard.alpha, scores > guard.threshold)


def test_too_small_calibration_is_refused_before_fitting() -> None:
    with pytest.raises(CalibrationError, match="too few"):
        demur.fit_guard(benign(100, seed=0), benign(20, seed=1))
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        demur.fit_guard(benign(10, seed=0), benign(20, seed=1), alpha=2)


def test_standardising_shows_what_saturation_hides() -> None:
    generator = np.random.default_rng(0)

    def saturated(n: int, level: float) -> NDArray[np.float32]:
        noisy = generator.uniform(0, 1, size=(n, 8))
        flat = 1 - level * generator.uniform(0.5, 1.5, size=(n, 8))
        return np.concatenate([noisy, flat], axis=1).astype(np.float32)

    train, calibration, odd = saturated(600, 0.01), saturated(200, 0.01), saturated(100, 0.1)
    found = {
        name: demur.fit_guard(train, calibration, alpha=0.05, detector=name).flag(odd).mean()
        for name in ("sri", "sri-standardised")
    }
    assert found["sri-standardised"] > found["sri"] + 0.3


def test_saved_guard_gives_the_same_scores(guard: Guard, tmp_path: Path) -> None:
    again = Guard.load(guard.save(tmp_path / "guard.safetensors"))
    values = hesitant(20, seed=4)
    np.testing.assert_array_equal(again.score(values), guard.score(values))
    assert (again.threshold, again.alpha, again.method) == (guard.threshold, 0.05, "conformal")
    with pytest.raises(InputError, match="not demur"):
        Anchors.load(tmp_path / "guard.safetensors")


def test_guard_reads_traces_of_its_own_model_only(tiny_ar: LanguageModel, tmp_path: Path) -> None:
    labels = ["harmless", "harmful"] * 20
    prompts = [
        demur.Prompt(f"w{i % 40} w{i // 2}", label=label)  # type: ignore[arg-type]
        for i, label in enumerate(labels)
    ]
    traces = demur.trace(tiny_ar, prompts, sampler=Autoregressive(steps=5))
    anchors = demur.fit_anchors(traces, [label == "harmful" for label in labels], allow_few=True)
    fitted = demur.fit_guard(traces, traces, anchors=anchors, alpha=0.1)
    again = Guard.load(fitted.save(tmp_path / "g.safetensors"))
    expected = fitted.score(demur.signal(anchors.states(traces), anchors))
    np.testing.assert_array_equal(again.score(traces), expected)
    other = demur.trace(tiny_ar, ["w1"], sampler=Autoregressive(steps=4))
    with pytest.raises(FingerprintError, match="sampler"):
        again.flag(other)
    bare = demur.fit_guard(benign(30, seed=0), benign(30, seed=1), alpha=0.1)
    with pytest.raises(FingerprintError, match="no anchors"):
        bare.score(traces)


def test_same_seed_same_guard() -> None:
    first, second = (demur.fit_guard(benign(140, seed=0), alpha=0.1, seed=3) for _ in range(2))
    assert first.threshold == second.threshold
    assert len(first.calibration) == 20


def test_wrong_length_is_refused(guard: Guard) -> None:
    with pytest.raises(SignalError, match=r"\[N, 16\]"):
        guard.score(np.zeros((1, 15)))
