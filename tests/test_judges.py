"""The paper's refusal dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.errors import InputError
from demur.judges import refusal_judge
from demur.judges.dictionary import PAPER


def test_it_is_the_papers_list() -> None:
    assert len(set(PAPER.phrases)) == 31


@pytest.mark.parametrize(
    ("response", "refused"),
    [
        ("I\u2019m sorry, but I can\u2019t do that.", True),
        ("I CANNOT   share this", True),
        ("Sure, here is how it works.", False),
        ("They were unable to come.", True),
        ("The seller refuses refunds.", False),
        ("", False),
        ("An illegality is not the word.", False),
    ],
)
def test_whole_phrases(response: str, refused: bool) -> None:
    verdict = refusal_judge("paper")("", response)
    assert verdict.hit == refused
    assert bool(verdict.raw) == refused


@given(st.text())
def test_never_raises(text: str) -> None:
    assert PAPER("", text).outcome in ("hit", "miss")


def test_unknown_judge() -> None:
    with pytest.raises(InputError, match="Known: paper"):
        refusal_judge("oracle-of-delphi")
