"""Tokens to text as they come, up to a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import final

#: What a decoder gives for a character whose bytes are not all there yet.
_UNFINISHED = "\ufffd"

#: Sequences of tokens whose text is kept; answers say the same pairs of words again and again.
_REMEMBERED = 1 << 14


def remembered(decode: Callable[[Sequence[int]], str]) -> Callable[[Sequence[int]], str]:
    """The decoder, with the texts of the last few thousand short sequences."""
    return lru_cache(_REMEMBERED)(decode)


@final
class Speech:
    """The text of one answer.

    A piece of text is given once nothing that follows can change it: characters whose bytes are
    spread over tokens, and text that may be the beginning of a stop text, wait.

    Attributes:
        stopped: a stop text was met; nothing more is said.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._ids: list[int] = []
        self._before, self._said = 0, 0
        self._context = ""
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Take in a token; give the text that is certain now."""
        self._ids.append(token)
        text = self._decode(tuple(self._ids[self._before :]))
        if text.endswith(_UNFINISHED):
            return ""
        return self._pass(text)

    def end(self) -> str:
        """Give what still waited; nothing follows."""
        if self.stopped:
            return ""
        rest = self._pass(self._decode(tuple(self._ids[self._before :])))
        held, self._held = self._held, ""
        return rest + held

    def _pass(self, text: str) -> str:
        """Text of the tokens since ``_before``: what is new in it, less what may become a stop."""
        # A token's text depends on the tokens beside it, so the last ones said are decoded again.
        new = text[len(self._context) :]
        self._before, self._said = self._said, len(self._ids)
        self._context = self._decode(tuple(self._ids[self._before : self._said]))
        return self._until_stop(new)

    def _until_stop(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        places = [place for place in map(text.find, self._stop) if place >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        waiting = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - waiting :]
        return text[: len(text) - waiting]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that ``stop`` begins with."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in lengths if stop.startswith(text[-n:])), 0)
