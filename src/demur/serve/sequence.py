"""One sequence to generate: its request, its events, and the text that may be released."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal, final

from demur.sampling import Sampler

FinishReason = Literal["stop", "length", "content_filter"]

#: A decoder's output for a character whose bytes are incomplete.
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True)
class Started:
    """The sequence has a row in the batch."""


@dataclass(frozen=True)
class TextReleased:
    """Text that passed.

    Attributes:
        text: of the answer.
        thought: what the model thinks before it, apart only where the sequence asks for that.
    """

    text: str
    thought: str = ""


@dataclass(frozen=True)
class StepTaken:
    """One step as the operator sees it, drafts included.

    Attributes:
        tokens: committed tokens, -1 where masked.
        draft: the same with predictions.
        sigma: the signal in [0, 1]; None without a guard that reads it and without anchors.
        flagged: whether the guard has flagged the sequence by now.
    """

    tokens: list[int]
    draft: list[int]
    sigma: float | None
    flagged: bool


@dataclass(frozen=True)
class Finished:
    """Last event of a sequence that ended.

    Attributes:
        reason: why it ended.
        tokens: tokens generated, including those withheld.
        evidence: the guard's evidence; None without a guard.
    """

    reason: FinishReason
    tokens: int
    evidence: Mapping[str, Any] | None


@dataclass(frozen=True)
class Failed:
    """Last event of a sequence that failed; the log has the error."""

    cause: Literal["model", "time"]


Event = Started | TextReleased | StepTaken | Finished | Failed

#: What a request's sequences have to report.
Events = asyncio.Queue[tuple["ServedSequence", Event]]


@dataclass(eq=False, kw_only=True)
class ServedSequence:
    """One sequence to generate.

    Attributes:
        prompt: token ids, including the beginning of the answer.
        sampler: settings; its ``new_tokens`` is the room for the answer.
        seed: random seed of this sequence, in [0, 2**63).
        most: maximum number of tokens.
        stop: texts that end the answer and are not part of it.
        client: the client, for fair queueing.
        index: place among the request's sequences.
        splits: whether to tell thought from answer.
        watched: whether to report every step (``StepTaken``).
        audited: whether the guard only marks it: the operator's page shows what it would stop.
        calibrated: whether the guard was calibrated on requests of this kind.
        whole: whether the request leaves the answer its natural end, as in the calibration: no stop
            text and no smaller maximum.
        events: queue of its events, each with the sequence.
        arrived: ``time.monotonic()`` at arrival.
    """

    prompt: list[int]
    sampler: Sampler
    seed: int
    most: int
    events: Events = field(default_factory=asyncio.Queue)
    stop: tuple[str, ...] = ()
    client: str = ""
    index: int = 0
    splits: bool = False
    watched: bool = False
    audited: bool = False
    calibrated: bool = True
    whole: bool = True
    arrived: float = field(default_factory=monotonic)


@final
class Detokenizer:
    """The text of one sequence, token by token.

    Text is returned once no later token can change it. Characters whose bytes are spread over tokens,
    and text that may be the beginning of a stop text, wait.

    Attributes:
        stopped: a stop text was found; nothing follows.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], *, stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._ids: list[int] = []
        self._before, self._given = 0, 0
        self._context = ""
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Add a token; return the text that is now final."""
        self._ids.append(token)
        text = self._decode(tuple(self._ids[self._before :]))
        return "" if text.endswith(_INCOMPLETE) else self._pass(text)

    def end(self) -> str:
        """Return the text that still waited; nothing follows."""
        if self.stopped:
            return ""
        rest = self._pass(self._decode(tuple(self._ids[self._before :])))
        held, self._held = self._held, ""
        return rest + held

    def _pass(self, text: str) -> str:
        """The new part of the text since ``_before``, without a possible beginning of a stop text."""
        # A token's text depends on the tokens beside it, so the last ones given are decoded again.
        new = text[len(self._context) :]
        self._before, self._given = self._given, len(self._ids)
        self._context = self._decode(tuple(self._ids[self._before : self._given]))
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
    """Length of the longest end of ``text`` that is a beginning of ``stop``."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in lengths if stop.startswith(text[-n:])), 0)


@final
class OutgoingText:
    """Text of one sequence on its way to the client.

    Args:
        detokenizer: tokens to text.
        held: tokens to keep back while more may follow; None keeps all.

    Attributes:
        count: tokens added.
        begun: the scheduler's seconds in the model and in the guard before the first step.
    """

    def __init__(self, detokenizer: Detokenizer, *, held: int | None) -> None:
        self._detokenizer, self._held = detokenizer, held
        self._pieces: deque[str] = deque()
        self.count = 0
        self.begun: tuple[float, float] | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop text was found."""
        return self._detokenizer.stopped

    def add(self, tokens: Sequence[int]) -> None:
        """Add tokens, up to the one that completes a stop text."""
        for token in tokens:
            if self.stopped:
                return
            self.count += 1
            self._pieces.append(self._detokenizer.add(token))

    def released(self) -> str:
        """Text to release while more may follow."""
        if self._held is None:
            return ""
        count = len(self._pieces) - self._held
        return "".join(self._pieces.popleft() for _ in range(count))

    def rest(self) -> str:
        """All text not released yet; nothing follows."""
        text = "".join(self._pieces) + self._detokenizer.end()
        self._pieces.clear()
        return text
