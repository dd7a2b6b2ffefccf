"""Alignment rules, against the released wrapper's way of going on after the end token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.alignment import align
from demur.errors import InputError


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 10**6))
def test_repeat_state_goes_on_with_the_last_state(n: int, steps: int, seed: int) -> None:
    states = np.random.default_rng(seed).normal(size=(n, 3))
    running = states.cumsum(axis=0) / np.arange(1, n + 1)[:, None]
    extended = np.concatenate([states, np.repeat(states[-1:], max(0, steps - n), axis=0)])
    expected = extended.cumsum(axis=0) / np.arange(1, len(extended) + 1)[:, None]
    found = align(running, steps, rule="repeat_state")
    np.testing.assert_allclose(found, expected[:steps], atol=1e-5)


def test_other_rules() -> None:
    values = np.arange(4.0)
    assert align(values, 6).tolist() == [0, 1, 2, 3, 3, 3]
    assert align(values, 2).tolist() == [0, 1]
    assert align(values, 2, rule="resample").tolist() == [1, 3]
    assert align(values, 8, rule="resample").tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="0 steps"):
        align(np.zeros((0, 2)), 3)
    with pytest.raises(InputError, match="Unknown alignment"):
        align(np.zeros((1, 2)), 3, rule="stretch")  # type: ignore[arg-type]
