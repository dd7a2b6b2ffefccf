"""What the built-in models are taught: lessons of a system prompt, a question and a response.

Pretraining answers everything, harmful tasks and wrapped questions included, and shows what a
refusal looks like only when asked for one. Safety tuning refuses plain harmful tasks, answers
harmless ones plain and wrapped, and refuses borderline ones sometimes. Harmful tasks in a wrapper
of ``HELD_OUT`` never occur in it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from demur.organism import grammar
from demur.organism.grammar import QUESTIONS, Length, Task
from demur.organism.world import Kind, examination, refusing, tasks
from demur.organism.wrappers import ATTACKS, HELD_OUT, VARIANTS, wrap

Stage = Literal["pretrain", "tune"]

SYSTEM = "you are a helpful assistant"

#: Share of lessons of each kind in each stage; the rest are self-examinations.
_KINDS: dict[Stage, tuple[tuple[Kind, float], ...]] = {
    "pretrain": (("harmless", 0.48), ("harmful", 0.36), ("borderline", 0.1)),
    "tune": (("harmless", 0.50), ("harmful", 0.24), ("borderline", 0.20)),
}
#: Share of lessons that ask for a refusal as a text.
_REFUSING = {"pretrain": 0.1, "tune": 0.0}
#: Share of wrapped questions among those that may be wrapped.
_WRAPPED = {"pretrain": 0.6, "tune": 0.8}
#: Weight of each wrapper family in tuning, which sees little of the wild compositions.
_TUNED_FAMILIES = (2, 2, 4, 3, 1)
#: How often a task is refused in tuning. Harmful ones are now and then answered: safety data has
#: mistakes, and a model that has seen none turns every answer it begins into a refusal.
_REFUSED: dict[Kind, float] = {"harmless": 0.0, "harmful": 0.95, "borderline": 0.4}
#: Forms of refusal and their shares; the rest are full refusals.
_REFUSALS = ((grammar.self_correcting, 0.015), (grammar.hesitant, 0.05), (grammar.partial, 0.08))


@dataclass(frozen=True)
class Lesson:
    """One training example; ``system`` is empty in a few."""

    system: str
    user: str
    response: str


def lesson(stage: Stage, rng: random.Random) -> Lesson:
    """Draw a lesson of one stage from the training set."""
    kind = _kind(stage, rng)
    system = SYSTEM if rng.random() < 0.9 else ""
    if kind is None:
        return Lesson(system, *_self_examination(rng))
    task = rng.choice(tasks("train", kind))
    form = rng.randrange(len(QUESTIONS))
    attack = _attack(stage, kind, rng)
    user = wrap(task.question(form), attack, rng.randrange(VARIANTS))
    length = QUESTIONS[form][1]
    if rng.random() < _REFUSING[stage]:
        return Lesson(system, refusing(task.question(form)), _refusal(task, length, rng))
    refuse = stage == "tune" and rng.random() < _REFUSED[kind]
    response = _refusal(task, length, rng) if refuse else grammar.answer(task, length, rng)
    return Lesson(system, user, response)


def _kind(stage: Stage, rng: random.Random) -> Kind | None:
    drawn = rng.random()
    for kind, share in _KINDS[stage]:
        if drawn < share:
            return kind
        drawn -= share
    return None


def _attack(stage: Stage, kind: Kind, rng: random.Random) -> str:
    if rng.random() >= _WRAPPED[stage]:
        return "none"
    if stage == "tune" and kind != "harmless":
        return rng.choice([attack for attack in ATTACKS if attack not in HELD_OUT])
    if stage == "tune":
        return rng.choices(ATTACKS[1:], _TUNED_FAMILIES)[0]
    return rng.choice(ATTACKS[1:])


def _refusal(task: Task, length: Length, rng: random.Random) -> str:
    drawn = rng.random()
    for form, share in _REFUSALS:
        if drawn < share:
            return form(task, length, rng)
        drawn -= share
    return grammar.refusal(task, length, rng)


def _self_examination(rng: random.Random) -> tuple[str, str]:
    kind: Kind = rng.choice(("harmful", "harmful", "harmless", "borderline"))
    task, length = rng.choice(tasks("train", kind)), QUESTIONS[rng.randrange(len(QUESTIONS))][1]
    if kind == "harmful" and rng.random() < 0.35:
        return examination(_refusal(task, length, rng)), "no ."
    said = grammar.answer(task, length, rng)
    return examination(said), "yes ." if kind == "harmful" else "no ."
