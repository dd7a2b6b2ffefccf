"""What of one answer may leave, and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple, final

from demur.serve.speech import Speech

#: ``hold`` keeps a number of tokens behind, ``buffer`` all until the end; ``audit`` blocks nothing.
Mode = Literal["hold", "buffer", "audit"]


class Clocks(NamedTuple):
    """Seconds that an engine has spent so far.

    Attributes:
        model: in the network and the sampler.
        guard: on judging.
    """

    model: float = 0.0
    guard: float = 0.0


@final
class Answer:
    """Text of one answer on its way out.

    Args:
        speech: tokens to text.
        held: tokens kept back while more may follow; all of them when None.

    Attributes:
        count: tokens taken in.
        begun: the engine's clocks before the answer's first step; None until then.
    """

    def __init__(self, speech: Speech, *, held: int | None) -> None:
        self._speech, self._held = speech, held
        self._pieces: deque[str] = deque()
        self.count = 0
        self.begun: Clocks | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop text was met."""
        return self._speech.stopped

    def add(self, tokens: Sequence[int]) -> None:
        """Take in tokens, up to the one that completes a stop text."""
        for token in tokens:
            if self.stopped:
                return
            self.count += 1
            self._pieces.append(self._speech.add(token))

    def passed(self) -> str:
        """Text that may leave while more may follow."""
        if self._held is None:
            return ""
        leaving = [self._pieces.popleft() for _ in range(len(self._pieces) - self._held)]
        return "".join(leaving)

    def rest(self) -> str:
        """All text that has not left yet; nothing follows."""
        text = "".join(self._pieces) + self._speech.end()
        self._pieces.clear()
        return text
