"""Adaptive: random search by an attacker who knows the guard.

The search is that of Andriushchenko et al., arXiv:2404.02151 (``demur.attacks.suffix_search``);
evaluating a defense against an attacker who knows it follows Carlini et al., On Evaluating Adversarial
Robustness, arXiv:1902.06705. A candidate's score is

    likelihood * log p(opening) - penalty * guard score of its generation,

and ``likelihood`` = 0 attacks only the guard. Each query generates a full response, because the guard
scores the response. A search stops when the guard passes the candidate and, unless only the guard is
attacked, the opening is likely enough.

Differs from both: the guard is SRI Guard (arXiv:2602.02600, section 5), whose paper reports no
adaptive attack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, final

from pydantic import InstanceOf

from demur.attacks.likelihood import opening_log_probabilities, openings
from demur.attacks.suffix_search import Objective, Scored, SuffixSearch
from demur.errors import InputError
from demur.generation import trace
from demur.guard import AnyGuard
from demur.models.base import LanguageModel
from demur.sampling import sampler_from
from demur.types import Fingerprint, Prompt, Record, digest


@final
@dataclass(frozen=True, kw_only=True)
class Adaptive(SuffixSearch):
    """Settings, in addition to those of ``SuffixSearch``.

    Attributes:
        guard: the guard that the attacker knows.
        likelihood: weight of the opening's log-probability, at least 0.
        penalty: lambda, the weight of the guard's score, at least 0.
    """

    name: ClassVar[str] = "adaptive"
    description: ClassVar[str] = "Random search against the model and its guard together."
    source: ClassVar[str] = "Andriushchenko et al. 2024, arXiv:2404.02151, with the guard's score"
    guard: InstanceOf[AnyGuard]
    likelihood: float = 1.0
    penalty: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.likelihood, self.penalty) < 0 or self.likelihood == self.penalty == 0:
            raise InputError(
                f"likelihood is {self.likelihood} and penalty {self.penalty}; both must be 0 or "
                "more, and one above 0."
            )
        _made(self.guard)

    def mark(self) -> dict[str, object]:
        """The settings as plain data, with a digest in place of the guard."""
        known = [self.guard.threshold, self.guard.calibration.tolist()]
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "guard": digest(known), "state": ""}

    def objective(self, target: LanguageModel, *, seed: int) -> Objective:
        """The weighted sum; responses are generated like those the guard was fitted on.

        Raises:
            FingerprintError: the guard is of another model.
        """
        tokens, enough = openings(target, self.opening), math.log(self.stop_at)

        def score(prompts: list[Prompt]) -> list[Scored]:
            suspicion = guard_scores(self.guard, target, prompts, seed=seed)
            likely = opening_log_probabilities(target, prompts, tokens)
            found = []
            for p, s in zip(likely, suspicion, strict=True):
                enough_likely = self.likelihood == 0 or p >= enough
                reached = self.stop_at < 1 and s <= self.guard.threshold and enough_likely
                found.append(Scored(self.likelihood * p - self.penalty * s, reached))
            return found

        return score


def guard_scores(
    guard: AnyGuard, model: LanguageModel, prompts: list[Prompt], *, seed: int = 0
) -> list[float]:
    """The guard's score of a response to each prompt, generated like those it was fitted on.

    Raises:
        InputError: the guard was fitted on bare signals.
        FingerprintError: the guard is of another model.
    """
    made = _made(guard)
    traces = trace(
        model,
        prompts,
        sampler=sampler_from(made.sampler),
        record=Record(layers=("last", *guard.layers), pooling=made.pooling, seed=seed),
        batch_size=len(prompts),
    )
    found: list[float] = guard.score(traces).tolist()
    return found


def _made(guard: AnyGuard) -> Fingerprint:
    if guard.fingerprint is None:
        raise InputError(
            "This guard was fitted on bare signals, so it cannot score a generation. Fit it on traces: "
            "demur.fit_guard(traces, anchors=anchors)."
        )
    return guard.fingerprint
