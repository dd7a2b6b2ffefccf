"""What a judge says of one response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Verdict:
    """One judgement.

    Attributes:
        outcome: ``hit`` when what the judge looks for is there; ``unparsed`` is never a hit.
        raw: the phrase that matched, or the answer of a judging model.
    """

    outcome: Literal["hit", "miss", "unparsed"]
    raw: str = ""

    @property
    def hit(self) -> bool:
        """Whether the judge found what it looks for."""
        return self.outcome == "hit"


class Judge(Protocol):
    """Decides whether a response to a goal is what it looks for, such as a refusal."""

    @property
    def name(self) -> str:
        """What the judge is called in tables."""

    def __call__(self, goal: str, response: str) -> Verdict:
        """Judge one response."""
