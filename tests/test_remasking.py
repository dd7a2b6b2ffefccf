"""Confidences and schedules, on numbers small enough to check by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from demur.sampling import RowNoise
from demur.sampling.choice import commits_at, confidence, most_confident

P = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
#: Two positions of one row.
WHERE = torch.tensor([[i in (3, 8) for i in range(9)]])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("low_confidence", [0.7, 0.35]),
        ("margin", [0.5, 0.05]),
        ("left_to_right", [-3.0, -8.0]),
        ("random", RowNoise.seeded([0]).uniform(WHERE).tolist()),
        (
            "entropy",
            [sum(p * math.log(p) for p in row) for row in P.tolist()],
        ),
    ],
)
def test_confidence(rule: str, expected: list[float]) -> None:
    found = confidence(
        rule,  # type: ignore[arg-type]
        P.log() + 2,
        torch.tensor([0, 1]),
        WHERE,
        RowNoise.seeded([0]),
    )
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_token_ruled_out_leaves_entropy_finite() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]])
    where, noise = torch.ones(1, 1, dtype=torch.bool), RowNoise.seeded([0])
    found = confidence("entropy", logits, torch.tensor([0]), where, noise)
    assert found.tolist() == pytest.approx([-math.log(2)])


def test_low_confidence_in_bfloat16_is_the_softmax_of_llada() -> None:
    """``generate.py`` takes it in the model's dtype; a log-sum-exp there rounds otherwise."""
    logits = (4 * torch.randn(64, 500, generator=torch.Generator().manual_seed(0))).bfloat16()
    chosen = logits.argmax(-1)
    upstream = torch.gather(torch.softmax(logits, -1), -1, chosen[:, None])[:, 0]
    where, noise = torch.ones(1, 64, dtype=torch.bool), RowNoise.seeded([0])
    found = confidence("low_confidence", logits, chosen, where, noise)
    assert torch.equal(found, upstream.float())
    exact = confidence("low_confidence", logits.float(), chosen, where, noise)
    assert len(found.unique()) < len(exact.unique())
    order = [score.argsort(descending=True, stable=True).tolist() for score in (found, exact)]
    assert order[0] != order[1]


@given(masked=st.integers(0, 300), steps=st.integers(1, 64))
def test_commits_add_up_and_spread_evenly(masked: int, steps: int) -> None:
    shares = [
        int(commits_at(torch.tensor([masked]), torch.tensor([i]), steps)) for i in range(steps)
    ]
    assert sum(shares) == masked
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def test_most_confident_breaks_ties_to_the_left_and_never_takes_closed_positions() -> None:
    score = torch.tensor([[0.5, 0.5, 0.9, 0.5], [-torch.inf, 0.1, -torch.inf, -torch.inf]])
    taken = most_confident(score, torch.tensor([2, 3]))
    assert taken.long().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]
