"""Separate thought and answer in the text of a reasoning model.

All code that reads answers uses this module, so all agree where an answer begins. Known
forms: ``<think>`` and its spellings (``<thinking>``, ``<thought>``, ``<reasoning>``, ``<seed:think>``,
``[THINK]``, ``◁think▷``, ``<|begin_of_thought|>``, ``<|START_THINKING|>``, ``<|inner_prefix|>``,
``<|channel>thought``), even if only the closing tag was written; the channels of gpt-oss, with
control tokens or as plain text (``analysis...assistantfinal...``); Granite's "Here is my thought
process:".

An opening tag counts at the start of the text, of a line, or after a control token, so that an answer
may mention one. If a thought does not end, nothing was said: ``spoken`` returns None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import final

_NAME = r"(?:\w{1,12}[:_])?(?:think(?:ing)?|thoughts?|reasoning|scratchpad)"
_OPENING = (
    rf"<\|?{_NAME}\|?>|\[think\]|◁think▷|<\|begin_of_thought\|>|<\|start_thinking\|>"
    r"|<\|inner_prefix\|>|<\|channel>thought\b"
    r"|<\|channel\|>(?! ?final)[^<]{0,80}(?:<\|constrain\|>\w{1,20} ?)?<\|message\|>"
)
_CLOSING = (
    rf"</\|?{_NAME}\|?>|\[/think\]|◁/think▷|<\|end_of_thought\|>|<\|end_thinking\|>"
    r"|<\|inner_suffix\|>|<channel\|>"
    r"|(?:(?:<\|end\|>)? ?<\|start\|> ?assistant ?)?<\|channel\|> ?final[^<]{0,40}"
    r"(?:<\|constrain\|>\w{1,20} ?)?<\|message\|>"
)
_MARK = re.compile(rf"(?P<close>{_CLOSING})|(?P<open>{_OPENING})", re.IGNORECASE)
#: Forms without a tag: the first words, and the words that end the thought.
_UNTAGGED = (
    (re.compile(r"\s*(?:analysis|commentary)(?=[\w\"'])"), re.compile(r"assistant\s?final\s?")),
    (
        re.compile(r"\s*here(?: is|'s|\u2019s) my thought process:", re.IGNORECASE),
        re.compile(r"here(?: is|'s|\u2019s) my response:", re.IGNORECASE),
    ),
)
#: Tokens around an answer that are not part of it.
_WRAPPING = re.compile(
    r"<\|(?:begin_of_solution|end_of_solution|start_response|end_response|end|return|start"
    r"|start_text|end_text)\|>(?:assistant\b)?",
    re.IGNORECASE,
)
#: Control tokens without which a channel's mark cannot be read.
_CHANNEL = frozenset({"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"})
#: The end of a text that may be the beginning of a mark.
_PARTIAL = re.compile(
    r"(?:<\|end\|>)? ?(?:<\|start\|>[\w ]{0,14})?<\|channel\|?>?[^<]{0,80}(?:<[^<]{0,40}){0,2}$"
    r"|<\|(?:end|start)\|?>?[^<]{0,12}(?:<\|?[a-z]{0,12})?$"
    r"|[<\[◁]/?\|?[\w:]{0,30}[|▷]?$",
    re.IGNORECASE,
)
#: For a quick test: first characters of the forms without a tag, and a word of every tag.
_FIRST = ("analysis", "commenta", "here is ", "here's m", "here\u2019s m")
_WORDS = ("think", "thought", "reasoning", "scratchpad", "channel", "inner_prefix")
#: Most blanks before an opening tag.
_INDENT = 64
#: Longest mark, in characters. A reader of pieces keeps as much of the text before.
_LONGEST = 160

Range = tuple[int, int]


def thoughts(text: str, *, opened: bool = False) -> list[tuple[int, int | None]]:
    """Where the model thinks: ``(start, end)`` in characters, marks included.

    Args:
        text: what the model wrote, from its first character on.
        opened: whether the prompt ends inside a thought; see ``opens``.

    Returns:
        Ranges in order. The end of the last is None while that thought goes on.
    """
    if not opened and not _may_think(text):
        return []
    if not opened and (bare := _untagged(text)):
        return bare
    found: list[tuple[int, int | None]] = []
    start = 0 if opened else None
    for mark in _MARK.finditer(text):
        if mark["open"] and start is None and _begins(text, mark.start()):
            start = mark.start()
        elif mark["close"] and start is not None:
            found.append((start, mark.end()))
            start = None
        elif mark["close"] and not found:
            found.append((0, mark.end()))  # the opening tag is missing
    return found if start is None else [*found, (start, None)]


def spoken(text: str, *, opened: bool = False) -> str | None:
    """What the model says outside its thoughts; None where it only thinks and was cut off."""
    if not opened and not _may_think(text):
        return text
    found = thoughts(text, opened=opened)
    said, at = "", 0
    for start, end in found:
        said += text[at:start]
        at = len(text) if end is None else end
    said = _WRAPPING.sub("", said + text[at:]) if found or "<|" in text else text
    if found and found[-1][1] is None and not said.strip():
        return None
    return said.strip() if found else said


def thinking(text: str, *, opened: bool = False) -> str:
    """What the model thinks, without the marks; empty where it does not."""
    found = [text[start:end] for start, end in thoughts(text, opened=opened)]
    return _WRAPPING.sub("", _MARK.sub("", "\n".join(found))).strip()


def answer_start(text: str, *, opened: bool = False) -> int | None:
    """The character where the answer begins; None while the model thinks or has said nothing."""
    at = 0
    for start, end in thoughts(text, opened=opened):
        if text[at:start].strip():
            break
        if end is None:
            return None
        at = end
    rest = text[at:]
    return at + len(rest) - len(rest.lstrip()) if rest.strip() else None


def thought_tokens(pieces: Sequence[str], *, opened: bool = False) -> list[bool]:
    """Whether each token is thought, marks included, for the text of each token in order."""
    text = "".join(pieces)
    ranges = [(a, len(text) + 1 if b is None else b) for a, b in thoughts(text, opened=opened)]
    starts = [0, *accumulate(map(len, pieces))]
    return [any(a <= start < b for a, b in ranges) for start in starts[: len(pieces)]]


def opening(prompt: str) -> str:
    """The mark of a thought, and what follows it, that a rendered prompt ends with; empty for none."""
    tail = prompt[-_LONGEST:]
    marks = [mark for mark in _MARK.finditer(tail) if not tail[mark.end() :].strip()]
    return tail[marks[-1].start() :] if marks and marks[-1]["open"] else ""


def opens(prompt: str) -> bool:
    """Whether a rendered prompt ends inside a thought, as where the template writes ``<think>``."""
    return bool(opening(prompt))


def first_mark(text: str) -> str:
    """The mark of a thought that a text begins with; empty for none."""
    found = _MARK.match(text.lstrip())
    return found[0] if found and found["open"] else ""


def is_mark(token: str) -> bool:
    """Whether the text of a control token is a mark of thoughts, or part of one."""
    return token in _CHANNEL or _MARK.fullmatch(token) is not None or token == "<|channel>"


def knows_thoughts(template: str) -> bool:
    """Whether a chat template has a mark of thoughts, as templates of reasoning models do."""
    return _MARK.search(template) is not None


@final
class ThoughtReader:
    """Tells thought from answer while text arrives, in time linear in the text.

    Unlike ``thoughts``, it notices a missing opening tag only at the closing tag.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._tail = ""
        self._at_start = True
        self._untagged: re.Pattern[str] | None = None
        self.thinking = opened

    def read(self, piece: str) -> bool:
        """Add the next piece of text; return whether the model is thinking at its end."""
        text = self._tail + piece
        if self._at_start and not self.thinking:
            for begins, ends in _UNTAGGED:
                if begins.match(text):
                    self.thinking, self._untagged = True, ends
        at = 0
        if self._untagged and (over := self._untagged.search(text)):
            self.thinking, self._untagged, at = False, None, over.end()
        for mark in _MARK.finditer(text):
            if self._untagged is None and mark.end() > at:
                if mark["close"] or self.thinking or self._begins(text, mark.start()):
                    self.thinking = bool(mark["open"])
                at = mark.end()
        # One character of the last mark stays, so that another may follow it.
        kept = max(at - 1, len(text) - _LONGEST, 0)
        self._at_start = self._at_start and not kept
        self._tail = text[kept:]
        return self.thinking

    def _begins(self, text: str, place: int) -> bool:
        return _begins(text, place) if place or self._at_start else False

    def read_all(self, pieces: Iterable[str]) -> list[bool]:
        """``read`` for each piece."""
        return [self.read(piece) for piece in pieces]


@final
class ThoughtSplitter:
    """Splits arriving text into thought and answer, without the marks, in time linear in the text.

    It gives text once no later text can make it part of a mark. A missing opening tag is not known
    before the closing one comes.

    Args:
        opened: whether the prompt ends inside a thought.
    """

    def __init__(self, *, opened: bool = False) -> None:
        self._thinking, self._marked = opened, opened
        self._before, self._held = "", ""
        self._untagged: re.Pattern[str] | None = None
        self._said = [False, False]

    def read(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """Take the next piece of text, and return the thought and the answer that are certain now.

        Args:
            piece: the text.
            last: whether nothing follows.
        """
        start = len(self._before)
        text = self._before + self._held + piece
        found = ["", ""]
        if not self._before and not self._marked:
            if not last and _may_begin_untagged(text):
                self._held = text
                return "", ""
            for begins, ends in _UNTAGGED:
                if begun := begins.match(text):
                    start = begun.end()
                    self._thinking, self._marked, self._untagged = True, True, ends
        if self._untagged and (over := self._untagged.search(text, start)):
            found[1] += text[start : over.start()]
            self._thinking, self._untagged, start = False, None, over.end()
        for mark in _MARK.finditer(text, start) if self._untagged is None else ():
            if mark["close"] or self._thinking or _begins(text, mark.start()):
                found[self._thinking] += text[start : mark.start()]
                self._thinking, self._marked, start = bool(mark["open"]), True, mark.end()
        until = len(text)
        if not last and self._untagged:
            until = max(start, until - 32)
        elif not last and (part := _PARTIAL.search(text, max(start, until - _LONGEST))):
            until = part.start()
        found[self._thinking] += text[start:until]
        self._before, self._held = text[max(0, until - _INDENT) : until], text[until:]
        return self._stripped(found[1], 1), self._stripped(found[0], 0)

    def _stripped(self, text: str, side: int) -> str:
        """Without the white space between a mark and the text."""
        text = text if self._said[side] or not self._marked else text.lstrip()
        self._said[side] = self._said[side] or bool(text)
        return text


def _may_begin_untagged(text: str) -> bool:
    """Whether a text is too short to tell whether it begins a thought without a tag."""
    words = text.lstrip().lower().replace("\u2019", "'")
    known = ("analysis", "commentary", "here is my thought process:", "here's my thought process:")
    return any(each.startswith(words) for each in known)


def _may_think(text: str) -> bool:
    """A quick test for parts that every form has."""
    if text.lstrip()[:8].lower() in _FIRST:
        return True
    if "<" not in text and "[" not in text and "◁" not in text:
        return False
    lowered = text.lower()
    return any(word in lowered for word in _WORDS)


def _untagged(text: str) -> list[tuple[int, int | None]]:
    for begins, ends in _UNTAGGED:
        if begins.match(text):
            over = ends.search(text)
            return [(0, over.end() if over else None)]
    return []


def _begins(text: str, place: int) -> bool:
    """Whether an opening tag may stand here."""
    first = max(0, place - _INDENT)
    before = text[first:place].rstrip(" \t")
    if not before:
        return first == 0
    return before.endswith(("\n", ">", "assistant", "▷", "]"))
