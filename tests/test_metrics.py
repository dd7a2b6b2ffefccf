"""Metrics against slow restatements and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from demur import metrics
from demur.errors import InputError

scores = st.lists(st.integers(0, 6), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(scores, scores)
def test_auroc_equals_scikit_learn(benign: list[int], malicious: list[int]) -> None:
    truth = [0] * len(benign) + [1] * len(malicious)
    found = metrics.auroc(benign, malicious)
    assert found.value == pytest.approx(roc_auc_score(truth, benign + malicious))


@settings(max_examples=60, deadline=None)
@given(scores, scores, st.sampled_from([0.01, 0.1, 0.3]))
def test_tpr_keeps_the_fpr(benign: list[int], malicious: list[int], fpr: float) -> None:
    thresholds = sorted({*benign, *malicious, -1})
    allowed = [t for t in thresholds if np.mean(np.array(benign) > t) <= fpr]
    best = max(float(np.mean(np.array(malicious) > t)) for t in allowed)
    found = metrics.tpr_at_fpr(benign, malicious, fpr=fpr, draws=10)
    assert found.value == pytest.approx(best)


def test_recovery_rates() -> None:
    runs = [
        [False, True, True, False],  # entered, revised, recovered
        [True, False, True, True],  # entered, revised, harmful at the end
        [False, True, True, True],  # entered, never revised
        [False, False, False],  # never entered
    ]
    revised, recovered = metrics.recovery_rates(runs)
    assert (revised.value, revised.n) == (pytest.approx(2 / 3), 3)
    assert recovered.value == pytest.approx(1 / 3)


def test_no_harmful_draft_is_not_a_number() -> None:
    revised, _ = metrics.recovery_rates([[False], [False]])
    assert math.isnan(revised.value)
    assert revised.n == 0


def test_internal_recovery_needs_both_sides() -> None:
    sigma = [[0.9, 0.2], [0.4, 0.2], [0.9, 0.45], [0.9, 0.9], [0.5, 0.5]]
    found = metrics.internal_recovery(sigma, threshold=0.5)
    assert found.tolist() == [True, False, True, False, True]
    assert metrics.internal_recovery(sigma, threshold=0.3).tolist() == [True] + [False] * 4


def test_bad_input() -> None:
    with pytest.raises(InputError, match="3 goals for 2 rows"):
        metrics.rate([True, False], [1, 2, 3])
    with pytest.raises(InputError, match="NaN"):
        metrics.auroc([float("nan")], [1.0])


labels = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=30
)


@settings(max_examples=60, deadline=None)
@given(labels)
def test_kappa_equals_scikit_learn(said: list[tuple[str, str]]) -> None:
    first, second = [a for a, _ in said], [b for _, b in said]
    found = metrics.cohen_kappa(first, second, draws=10).value
    if len({*first, *second}) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(cohen_kappa_score(first, second))


def test_two_judges_who_always_agree_may_still_differ_later() -> None:
    said = [True] * 10 + [False] * 10
    found = metrics.cohen_kappa(said, said)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.4 < found.low < 0.9


def test_tpr_of_all_or_none_is_not_certain() -> None:
    benign, goals = list(range(100)), [f"b{i}" for i in range(100)] + [f"m{i}" for i in range(12)]
    for scores_, value in (([200] * 12, 1.0), ([-1] * 12, 0.0)):
        found = metrics.tpr_at_fpr(benign, scores_, goals, fpr=0.01, draws=50)
        assert found.value == value
        assert found.high - found.low > 0.2


def test_kappa_of_different_lengths() -> None:
    with pytest.raises(InputError, match="2 verdicts against 1"):
        metrics.cohen_kappa([True, False], [True])
