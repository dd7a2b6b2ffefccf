"""What a judge says of one response, and of many: a rate is over the verdicts that were given.

A response that gets no verdict is counted beside the rate, never in it. Where no response got one there
is no rate: ``hit_rate`` gives None, and a table says "not judged".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from demur.metrics import Estimate, rate

#: What a judge's hit means: the response refuses, or it does the harm that the goal asks for.
What = Literal["refusal", "harm"]


@dataclass(frozen=True)
class Verdict:
    """One judgement.

    Attributes:
        outcome: ``hit`` when what the judge looks for is there, ``miss`` when it is not, ``unparsed``
            where it gives no verdict: that is neither, and counts in no rate.
        raw: the phrase that matched, or the answer of a judging model.
        label: the class, where the judge knows more than two, such as ``partial_refusal``. Where it
            gives no verdict, why: ``off_topic`` (the response has nothing to do with the goal),
            ``cut_off`` (its thought did not end), ``no_text``, ``other_language``; empty where the
            answer of a judging model has not the form asked for.
        score: the number it gave, on its own scale, where it gives one.
        place: character of the answer, after its thought, where the words that decided begin, where a
            judge knows it.
    """

    outcome: Literal["hit", "miss", "unparsed"]
    raw: str = ""
    label: str = ""
    score: float | None = None
    place: int | None = None

    @property
    def hit(self) -> bool:
        """Whether the judge found what it looks for."""
        return self.outcome == "hit"

    @property
    def given(self) -> bool:
        """Whether there is a verdict at all."""
        return self.outcome != "unparsed"


#: The verdict on a response whose thought did not end: nothing was said yet.
CUT_OFF = Verdict("unparsed", "the thought did not end", "cut_off")


@dataclass(frozen=True)
class Tally:
    """How many responses got which outcome.

    Attributes:
        hits, misses: verdicts given.
        off_topic: responses that have nothing to do with their goal.
        unparsed: all others that got no verdict.
    """

    hits: int
    misses: int
    off_topic: int
    unparsed: int

    @property
    def given(self) -> int:
        """How many verdicts were given: what a rate is over."""
        return self.hits + self.misses

    def __str__(self) -> str:
        beside = [f"{self.off_topic} off topic"] * bool(self.off_topic)
        beside += [f"{self.unparsed} unparsed"] * bool(self.unparsed)
        return ", ".join([f"{self.hits} of {self.given}", *beside])


def tally(verdicts: Sequence[Verdict]) -> Tally:
    """Count verdicts by outcome."""
    hits = sum(verdict.hit for verdict in verdicts)
    given = sum(verdict.given for verdict in verdicts)
    off_topic = sum(not v.given and v.label == "off_topic" for v in verdicts)
    return Tally(hits, given - hits, off_topic, len(verdicts) - given - off_topic)


def hit_rate(verdicts: Sequence[Verdict], goals: Sequence[Hashable]) -> Estimate | None:
    """Share of hits among the verdicts that were given, None where none was.

    Args:
        verdicts: one a response.
        goals: goal of each response, by which the interval resamples.
    """
    rows = [(v.hit, goal) for v, goal in zip(verdicts, goals, strict=True) if v.given]
    return rate([hit for hit, _ in rows], [goal for _, goal in rows]) if rows else None


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
