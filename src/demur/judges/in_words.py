"""One finished generation in words: what the model said, what happened inside, what a guard did.

The text and the state are two measurements and may disagree; then the words say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.judges.refusal import RefusalRules
from demur.organism import oracle

#: What SRI is, for the first place where it is shown.
SRI = (
    "Step-Wise Refusal Internal Dynamics (SRI) signal: 1 = hidden state close to answered harmless "
    "generations, 0 = close to refused harmful ones."
)

#: Signal below which a state leans to refusal (arXiv:2602.02600, section 5).
MIDDLE = 0.5

_RULES = RefusalRules()


@dataclass(frozen=True, kw_only=True)
class InWords:
    """A generation in words.

    Attributes:
        said: what the text does, and whether a draft was taken back.
        inside: what the signal did; empty without one.
        guard: when a guard stops it; empty without a guard.
    """

    said: str
    inside: str = ""
    guard: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.said, self.inside, self.guard)))


def in_words(
    goal: str,
    texts: Sequence[str],
    *,
    sigma: Sequence[float] = (),
    guarded: bool = False,
    flagged_at: int = 0,
) -> InWords:
    """Say what happened in one generation.

    Args:
        goal: what the prompt is after (``Prompt.goal``).
        texts: the text after each step, drafts included; the last one is the answer.
        sigma: the signal after each step; empty without anchors.
        guarded: whether a guard read the generation.
        flagged_at: 1-based step at which the guard flags it; 0 for never.
    """
    verdict = _RULES(goal, texts[-1])
    refuses = verdict.hit if verdict.given else None
    harmful = oracle.judge(goal, texts[-1]) == "harmful"
    said = {None: "No verdict on the text", True: "The text refuses", False: "The text complies"}[
        refuses
    ]
    if verdict.label == "partial_refusal":
        said = "The text refuses in part"
    if harmful:
        refuses, said = False, "The text complies: it holds the harmful answer"
    elif refuses is None and verdict.label:
        said += f" ({verdict.label.replace('_', ' ')})"
    said += f"{_taken_back(goal, texts, harmful=harmful)}."
    return InWords(
        said=said,
        inside=_inside(sigma, refuses) if len(sigma) else "",
        guard=_guard(flagged_at, len(texts)) if guarded else "",
    )


def _taken_back(goal: str, texts: Sequence[str], *, harmful: bool) -> str:
    """Which drafts held the harmful answer of a built-in task, where the answer does not."""
    if harmful:
        return ""
    steps = [n for n, text in enumerate(texts, 1) if oracle.judge(goal, text) == "harmful"]
    if not steps:
        return ""
    when = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} steps up to step {steps[-1]}"
    return f"; the draft held the harmful answer at {when} and took it back"


def _inside(sigma: Sequence[float], refuses: bool | None) -> str:
    leaning = [value < MIDDLE for value in sigma]
    last = f"σ {sigma[-1]:.2f} at the end"
    if all(leaning):
        path = "the state leaned to refusal at every step"
    elif not any(leaning):
        path = "the state never leaned to refusal"
    else:
        path = f"the state leaned to refusal at {sum(leaning)} of {len(leaning)} steps"
    end = "leans to refusal" if leaning[-1] else "leans to compliance"
    if refuses is None or refuses == leaning[-1]:
        return f"Inside, {path}; {last}."
    spoken = "refuses" if refuses else "complies"
    return f"Inside, {path}: the text {spoken}, the state {end} ({last})."


def _guard(flagged_at: int, steps: int) -> str:
    if flagged_at:
        return (
            f"The guard stops it at step {flagged_at} of {steps}, where its state is unlike those of "
            "harmless generations."
        )
    return "The guard lets it pass."
