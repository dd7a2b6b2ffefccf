"""A streaming guard of the built-in autoregressive model, made once a test process."""

from __future__ import annotations

from functools import cache

import demur
from demur.guard import StreamingGuard
from demur.judges import refusal_judge
from demur.models.base import LanguageModel
from demur.organism import world
from demur.sampling import Autoregressive
from demur.sri import Anchors
from demur.types import Traces

SAMPLER = Autoregressive(steps=24)


@cache
def model() -> LanguageModel:
    return demur.load("organism-ar")


def traced(split: world.Split, kind: world.TaskKind, n: int, *, attack: str = "none") -> Traces:
    """Traces of the first n prompts of a set."""
    prompts = world.prompts(split, kind, attack=attack, n=n)
    return demur.trace(model(), prompts, sampler=SAMPLER, batch_size=64)


def every_attack(split: world.Split, kind: world.TaskKind, n: int) -> Traces:
    """Traces of n prompts of a set under each attack and without."""
    return Traces(tuple(t for a in world.ATTACKS for t in traced(split, kind, n, attack=a)))


@cache
def anchors() -> Anchors:
    judge = refusal_judge("paper")
    known = [*traced("anchors", "harmless", 24), *traced("anchors", "harmful", 24)]
    return demur.fit_anchors(
        known, [judge(t.prompt.goal, t.response).hit for t in known], allow_few=True
    )


@cache
def guard() -> StreamingGuard:
    return demur.fit_streaming_guard(
        every_attack("guard", "harmless", 10),
        every_attack("calibration", "harmless", 8),
        anchors=anchors(),
        alpha=0.05,
    )
