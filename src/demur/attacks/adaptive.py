"""Adaptive: random search by an attacker who knows the guard.

The search is that of Andriushchenko et al., arXiv:2404.02151 (``demur.attacks.search``); that a
defense is to be tried by who knows it is Carlini et al., On Evaluating Adversarial Robustness,
arXiv:1902.06705. A candidate's score is

    likelihood * log p(opening) - penalty * guard score of its generation,

and ``likelihood`` = 0 attacks the guard alone. Each candidate is generated in full, because that is
what the guard sees, so a query costs a generation. A search stops when the guard lets the candidate
pass and, unless the guard alone is attacked, the opening is likely enough.

Differs from both: the guard is SRI Guard (arXiv:2602.02600, section 5), whose paper reports no attack
that knows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar, final

from pydantic import InstanceOf

from demur.attacks.likelihood import opening_log_probabilities, openings
from demur.attacks.search import Objective, Scored
from demur.attacks.suffix_search import SuffixSearch
from demur.errors import InputError
from demur.generation import trace
from demur.guard import AnyGuard, Guard, StreamingGuard
from demur.models.base import LanguageModel
from demur.sampling import sampler_from
from demur.sri import Anchors
from demur.types import Fingerprint, Prompt, Record, digest


@final
@dataclass(frozen=True, kw_only=True)
class Adaptive(SuffixSearch):
    """Settings beside those of ``SuffixSearch``.

    Attributes:
        guard: the guard that the attacker knows, with its anchors.
        likelihood: weight of the opening's log-probability, at least 0.
        penalty: lambda, the weight of the guard's score, at least 0.
    """

    name: ClassVar[str] = "adaptive"
    description: ClassVar[str] = "Random search against the model and its guard together."
    source: ClassVar[str] = "Andriushchenko et al. 2024, arXiv:2404.02151, with the guard's score"
    guard: InstanceOf[Guard] | InstanceOf[StreamingGuard]
    likelihood: float = 1.0
    penalty: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.likelihood, self.penalty) < 0 or self.likelihood == self.penalty == 0:
            raise InputError(
                f"likelihood is {self.likelihood} and penalty {self.penalty}; both must be 0 or "
                "more, and one above 0."
            )
        _anchors(self.guard)

    def mark(self) -> dict[str, object]:
        """The settings as plain data; a digest stands for the guard."""
        known = [self.guard.threshold, self.guard.calibration.tolist()]
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "guard": digest(known), "state": ""}

    def objective(self, target: LanguageModel, *, seed: int) -> Objective:
        """The weighted sum; generations are made as the guard's anchors were.

        Raises:
            FingerprintError: the guard is of another model.
        """
        tokens, enough = openings(target, self.opening), math.log(self.stop_at)

        def score(prompts: list[Prompt]) -> list[Scored]:
            suspicion = guard_scores(self.guard, target, prompts, seed=seed)
            likely = opening_log_probabilities(target, prompts, tokens)
            return [
                Scored(
                    self.likelihood * p - self.penalty * s,
                    self.stop_at < 1
                    and s <= self.guard.threshold
                    and (self.likelihood == 0 or p >= enough),
                )
                for p, s in zip(likely, suspicion, strict=True)
            ]

        return score


def guard_scores(
    guard: AnyGuard, model: LanguageModel, prompts: list[Prompt], *, seed: int = 0
) -> list[float]:
    """The guard's score of each prompt's generation, made as the guard's anchors were.

    Raises:
        InputError: the guard has no anchors with a fingerprint.
        FingerprintError: the guard is of another model.
    """
    anchors, made = _anchors(guard)
    traces = trace(
        model,
        prompts,
        sampler=sampler_from(made.sampler),
        record=Record(layers=(anchors.layer,), pooling=made.pooling, seed=seed),
        batch_size=len(prompts),
    )
    found: list[float] = guard.score(traces).tolist()
    return found


def _anchors(guard: AnyGuard) -> tuple[Anchors, Fingerprint]:
    if guard.anchors is None or guard.anchors.fingerprint is None:
        raise InputError(
            "The guard carries no anchors with a fingerprint, so that no generation can be scored. "
            "Fit it with anchors: demur.fit_guard(..., anchors=anchors)."
        )
    return guard.anchors, guard.anchors.fingerprint
