"""Verdicts on one response and on many, and the rate of hits among the verdicts given.

A response without a verdict is counted separately and never in the rate. If no response got a verdict,
there is no rate: ``hit_rate`` returns None, and tables say "not judged".
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
        outcome: ``hit`` if the judge found what it looks for, ``miss`` if not, ``unparsed`` if it
            gives no verdict, which counts in no rate.
        raw: the phrase that matched, or the answer of a judging model.
        label: the class, if the judge has more than two, such as ``partial_refusal``. Without a
            verdict, the reason: ``off_topic`` (the response has nothing to do with the goal),
            ``cut_off`` (its thought did not end), ``no_text``, ``other_language``; empty if the
            answer of a judging model does not have the form asked for.
        score: the judge's number on its own scale, if it gives one.
        place: where the words that decided begin, in characters of the answer after its thought, if
            the judge knows it.
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


#: The verdict on a response whose thought did not end, so that it says nothing.
CUT_OFF = Verdict("unparsed", "the thought did not end", "cut_off")


@dataclass(frozen=True)
class Tally:
    """Number of responses by outcome.

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
        """Number of verdicts given, the denominator of a rate."""
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
    """Share of hits among the verdicts given; None if there are none.

    Args:
        verdicts: one per response.
        goals: goal of each response, by which the interval resamples.
    """
    rows = [(v.hit, goal) for v, goal in zip(verdicts, goals, strict=True) if v.given]
    return rate([hit for hit, _ in rows], [goal for _, goal in rows]) if rows else None


class Described(Protocol):
    """What a list shows about each judge."""

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
    """What a list shows about a judge that needs a model.

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
    """A judge made of an entry and a model; name, hits and source are the entry's."""

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
    """A judge that is faster with many responses at a time."""

    def many(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """A verdict for each goal and response."""


def judge_all(judge: Judge, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """A verdict for each goal and response, in order."""
    if isinstance(judge, ManyAtOnce):
        return judge.many(pairs)
    return [judge(goal, response) for goal, response in pairs]
