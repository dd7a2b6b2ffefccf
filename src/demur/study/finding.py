"""One sentence of the summary, and what decides it: the 95% interval of a difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from demur.intervals import apart
from demur.metrics import Estimate
from demur.study.evidence import Evidence, Shown
from demur.study.results import Results
from demur.viz.tables import number

#: What a reader is told of a finding.
SAID = {
    "appears": "The paper's finding appears.",
    "does not appear": "The paper's finding does not appear.",
    "cannot be told": "Whether the paper's finding appears cannot be told.",
    "no claim": "",
}

Agreement = Literal["appears", "does not appear", "cannot be told", "no claim"]


@dataclass(frozen=True)
class Finding:
    """One sentence.

    Attributes:
        about: what it is about, in a few words.
        text: the sentence.
        agreement: whether the paper's finding appears in it.
        shown_in: titles of the tables and figures that support it.
    """

    about: str
    text: str
    agreement: Agreement
    shown_in: tuple[str, ...]


def told(holds: bool, contrary: bool) -> Agreement:
    """What is said of a finding that holds, whose contrary does, or neither."""
    return "appears" if holds else "does not appear" if contrary else "cannot be told"


def agreement(difference: Estimate) -> Agreement:
    """Whether a difference that the paper finds positive is, by its interval."""
    return told(difference.low > 0, difference.high < 0)


def estimates(found: Iterable[Shown]) -> list[Estimate]:
    """Those that are numbers."""
    return [one for one in found if isinstance(one, Estimate)]


def over_pairs(larger: Sequence[Estimate], smaller: Sequence[Estimate]) -> tuple[Agreement, str]:
    """Whether every number of one kind is larger than every one of the other, and in words.

    Each pair is told apart by the interval of its difference.
    """
    found = [apart(one, other) for one in larger for other in smaller]
    above = sum(one.low > 0 for one in found)
    below = sum(one.high < 0 for one in found)
    said = (
        f"compared pair by pair, the difference is beyond chance in the paper's direction in {above} "
        f"of {len(found)}, in the other in {below}, and cannot be told apart from chance in "
        f"{len(found) - above - below}"
    )
    return told(above == len(found), below == len(found)), said


def kinds(results: Results) -> tuple[list[Evidence], list[Evidence]]:
    """Autoregressive and diffusion main arms."""
    causal = [one for one in results.main if one.autoregressive]
    return causal, [one for one in results.main if not one.autoregressive]


def counted(arms: Sequence[Evidence], results: Results) -> str:
    """How many arms are counted and of which kind, as "3 of 6 arms, all autoregressive"."""
    causal = sum(one.autoregressive for one in arms)
    kind = (
        "all autoregressive"
        if causal == len(arms)
        else "all diffusion"
        if not causal
        else f"{causal} autoregressive and {len(arms) - causal} diffusion"
    )
    return f"{len(arms)} of {len(results.main)} arms, {kind}"


def span(values: Iterable[float]) -> str:
    """From the smallest to the largest, in the tables' numbers."""
    ordered = sorted(values)
    low, high = number(ordered[0]), number(ordered[-1])
    return low if low == high else f"{low} to {high}"
