"""Text leaves in pieces that nothing can change, and stop texts never do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demur.serve.sequence import Detokenizer, OutgoingText


def letters(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def spaced(ids: Sequence[int]) -> str:
    """As word-level tokenizers decode: a space between words, none before a full stop."""
    return " ".join(map(chr, ids)).replace(" .", ".")


def octets(ids: Sequence[int]) -> str:
    """As byte-level tokenizers decode: characters may be spread over tokens."""
    return bytes(ids).decode("utf-8", "replace")


def whole(speech: Detokenizer, ids: Sequence[int]) -> str:
    said = "".join(speech.add(token) for token in ids if not speech.stopped)
    return said + speech.end()


@pytest.mark.parametrize("decode", [letters, spaced])
@given(text=st.text("ab .", max_size=30))
def test_the_pieces_are_the_text(decode: object, text: str) -> None:
    ids = [ord(letter) for letter in text]
    assert whole(Detokenizer(decode), ids) == decode(ids)  # type: ignore[arg-type,operator]


@given(text=st.text(max_size=12))
def test_characters_that_are_spread_over_tokens_come_whole(text: str) -> None:
    ids = list(text.encode("utf-8", "replace"))
    speech = Detokenizer(octets)
    pieces = [speech.add(token) for token in ids]
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)
        assert "".join(pieces) + speech.end() == octets(ids)


@given(
    text=st.text("abc", max_size=30),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_a_stop_text_ends_it_wherever_tokens_end(text: str, stop: list[str]) -> None:
    speech = Detokenizer(letters, stop=stop)
    said = whole(speech, [ord(letter) for letter in text])
    # The earliest moment at which one of them is complete decides.
    ends = [n for n in range(len(text) + 1) if any(s in text[:n] for s in stop)]
    if not ends:
        assert said == text
        assert not speech.stopped
        return
    first = text[: ends[0]]
    assert said == first[: min(first.find(s) for s in stop if s in first)]
    assert speech.stopped


def test_what_may_become_a_stop_text_waits() -> None:
    speech = Detokenizer(letters, stop=["end"])
    assert [speech.add(ord(letter)) for letter in "been"] == ["b", "", "e", ""]
    assert speech.end() == "en"


@pytest.mark.parametrize("held", [0, 2, None])
def test_an_answer_keeps_tokens_behind(held: int | None) -> None:
    answer, gone = OutgoingText(Detokenizer(letters), held=held), ""
    for count, letter in enumerate("abcdef", 1):
        answer.add([ord(letter)])
        gone += answer.released()
        assert len(gone) == (0 if held is None else max(0, count - held))
    assert gone + answer.rest() == "abcdef"
    assert answer.count == 6
