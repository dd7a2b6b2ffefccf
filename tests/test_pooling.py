"""Which positions are averaged, on numbers small enough to check by hand."""

from __future__ import annotations

import pytest
import torch

from demur.errors import InputError
from demur.sampling.pooling import (
    POOLINGS,
    RunningMeans,
    find_pooling,
    mean_states,
    positions_mask,
)

COMMITTED = torch.tensor([[True, False, True, False], [False] * 4])
DRAFT = torch.tensor([[5, 9, 6, 9], [9, 5, 6, 7]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("response", [[1, 1, 1, 1], [1, 1, 1, 1]]),
        ("generated", [[1, 0, 1, 0], [1, 0, 0, 0]]),
        ("running", [[1, 0, 1, 0], [1, 0, 0, 0]]),
        ("content", [[1, 0, 0, 0], [1, 0, 0, 0]]),
    ],
)
def test_positions(name: str, expected: list[list[int]]) -> None:
    """Nothing committed or an empty answer still pools its first position."""
    mask = positions_mask(find_pooling(name), committed=COMMITTED, draft=DRAFT, end_ids=(9,))
    assert mask.long().tolist() == expected


def test_means_are_taken_in_float32() -> None:
    states = torch.full((1, 300, 2), 300.0, dtype=torch.float16)
    found = mean_states(states, torch.ones(1, 300, dtype=torch.bool))
    assert found.dtype == torch.float32
    assert found.tolist() == [[300.0, 300.0]]


def test_running_means_follow_their_rows() -> None:
    means = RunningMeans(2)
    both, second = torch.tensor([0, 1]), torch.tensor([1])
    yes, no = torch.tensor([True, True]), torch.tensor([False])
    means.add({"last": torch.tensor([[1.0], [10.0]])}, both, yes)
    found = means.add({"last": torch.tensor([[20.0]])}, second, yes[:1])
    assert found["last"].tolist() == [[1.0], [15.0]]
    assert means.add({"last": torch.tensor([[99.0]])}, second, no)["last"].tolist() == [[1], [15]]


def test_nothing_stays_of_a_row_that_is_forgotten() -> None:
    """Neither in a last bit nor, after a state that is none, for ever."""
    place, yes = torch.tensor([0]), torch.tensor([True])
    first = torch.tensor([[0.1, 1 / 3, 7.7]])
    for before in (1e4, torch.inf, torch.nan):
        means = RunningMeans(1)
        means.add({"last": torch.full_like(first, before)}, place, yes)
        means.forget(place)
        assert torch.equal(means.add({"last": first}, place, yes)["last"], first)


def test_an_uncounted_first_position_still_gives_a_mean() -> None:
    found = RunningMeans(1).add(
        {"last": torch.tensor([[4.0]])}, torch.tensor([0]), torch.tensor([False])
    )
    assert found["last"].tolist() == [[4.0]]


def test_unknown_pooling_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=", ".join(POOLINGS)):
        find_pooling("max")
