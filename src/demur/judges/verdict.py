"""What a judge says of one response."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

#: What a judge's hit means: the response refuses, or it does the harm that the goal asks for.
What = Literal["refusal", "harm"]


@dataclass(frozen=True)
class Verdict:
    """One judgement.

    Attributes:
        outcome: ``hit`` when what the judge looks for is there; ``unparsed`` is never a hit.
        raw: the phrase that matched, or the answer of a judging model.
        label: the class the judge gave, where it knows more than two, such as ``partial_refusal``.
        score: the number it gave, on its own scale, where it gives one.
    """

    outcome: Literal["hit", "miss", "unparsed"]
    raw: str = ""
    label: str = ""
    score: float | None = None

    @property
    def hit(self) -> bool:
        """Whether the judge found what it looks for."""
        return self.outcome == "hit"


class Described(Protocol):
    """What a list of judges shows of each."""

    @property
    def name(self) -> str:
        """What the judge is called in tables."""

    @property
    def what(self) -> What:
        """What its hit means."""

    @property
    def about(self) -> str:
        """One line about how it decides."""

    @property
    def source(self) -> str:
        """Where it was published."""


@dataclass(frozen=True)
class Entry:
    """What a list of judges shows of one that still needs a model.

    Attributes:
        name: what the judge is called in tables.
        what: what its hit means.
        about: one line about it.
        source: where it was published.
    """

    name: str
    what: What
    about: str
    source: str


class Entered(ABC):
    """A judge made of an entry and a model, which goes by what its entry says."""

    @property
    @abstractmethod
    def entry(self) -> Entry:
        """Its entry."""

    @property
    def name(self) -> str:
        """The entry's name."""
        return self.entry.name

    @property
    def what(self) -> What:
        """What a hit means."""
        return self.entry.what

    @property
    def about(self) -> str:
        """One line about it."""
        return self.entry.about

    @property
    def source(self) -> str:
        """Where it was published."""
        return self.entry.source


class Judge(Described, Protocol):
    """Decides whether a response to a goal is what it looks for, such as a refusal."""

    def __call__(self, goal: str, response: str) -> Verdict:
        """Judge one response."""


@runtime_checkable
class ManyAtOnce(Protocol):
    """A judge that is quicker with many responses at a time."""

    def many(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """A verdict for each goal and response."""


def judge_all(judge: Judge, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """A verdict for each goal and response, in order."""
    if isinstance(judge, ManyAtOnce):
        return judge.many(pairs)
    return [judge(goal, response) for goal, response in pairs]
