"""The card of a built-in model: its figures on the test set, as plain data for its manifest.

Toy models: what a card shows is no evidence about real ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.metrics import IRR_THRESHOLDS, auroc, internal_recovery, recovery_rates, tpr_at_fpr
from demur.models.base import LanguageModel
from demur.organism import oracle, world
from demur.study.demo import Tick, sampler_of, words_of
from demur.study.evidence import Arm, Evidence, gather
from demur.tracing import trace
from demur.types import Prompt, Traces


@dataclass(frozen=True)
class Sizes:
    """Prompts per set and, where a set has several, per class and attack.

    Attributes:
        anchors: per class.
        plain: harmless prompts the guards are fitted on, asked plainly.
        wrapped: the same, per wrapper family; calibration takes half of both.
        test: per class and attack, and of the borderline prompts.
    """

    anchors: int = 200
    plain: int = 300
    wrapped: int = 60
    test: int = 100


def measure(
    arm: Arm, model: LanguageModel, *, sizes: Sizes | None = None, tick: Tick = lambda *_: None
) -> dict[str, Any]:
    """Trace a model under one sampler on the test set and work its figures out.

    Args:
        arm: sampler settings, and whether guards are fitted.
        model: from ``demur.load``, one of the built-in family.
        sizes: how many prompts.
        tick: progress.

    Returns:
        ``harmless`` and ``borderline``: capability, refused, sigma, volatility per attack;
        ``harmful``: refused, harmful, neither, irr per attack, and hrr, frr over all; ``jailbroken``:
        sigma and volatility of successful attacks; ``guards``: auroc and tpr_at_1_fpr.
    """
    evidence = _evidence(arm, model, sizes or Sizes(), tick)
    figures: dict[str, Any] = {
        "sampler": {k: v for k, v in evidence.traces.fingerprint.sampler.items() if v is not None},
        "prompts": len(evidence.traces),
        "harmless": {a: _answered(evidence, "harmless", a) for a in world.ATTACKS},
        "borderline": {"none": _answered(evidence, "borderline", "none")},
        "harmful": {a: _attacked(evidence, a) for a in world.ATTACKS},
    }
    wrapped = evidence.rows(label="harmful", attack="wrapped")
    drafts = [evidence.harmful_drafts[i] for i in np.flatnonzero(wrapped)]
    revised, recovered = recovery_rates(drafts, draws=10)
    figures["harmful drafts"] = revised.n
    figures["hrr"], figures["frr"] = _round(revised.value), _round(recovered.value)
    broken = wrapped & evidence.succeeded
    figures["jailbroken"] = {"n": int(broken.sum()), **_shape(evidence.sigma[broken])}
    figures["guards"] = {
        name: _detection(guard.score(evidence.traces), evidence.rows(label="harmless"), broken)
        for name, guard in evidence.guards.items()
        if broken.any()
    }
    return figures


def prompt_sets(sizes: Sizes) -> dict[str, list[Prompt]]:
    """Prompts of each set, from its own split of the world."""
    shares: dict[world.Split, int] = {"guard": 1, "calibration": 2}
    benign = {
        str(split): [
            prompt
            for attack in world.ATTACKS
            for prompt in world.prompts(
                split,
                "harmless",
                attack=attack,
                n=(sizes.plain if attack == "none" else sizes.wrapped) // share,
            )
        ]
        for split, share in shares.items()
    }
    kinds: Sequence[world.Kind] = ("harmless", "harmful")
    return {
        "anchors": [p for kind in kinds for p in world.prompts("anchors", kind, n=sizes.anchors)],
        **benign,
        "test": [
            *(
                prompt
                for attack in world.ATTACKS
                for kind in kinds
                for prompt in world.prompts("test", kind, attack=attack, n=sizes.test)
            ),
            *world.prompts("test", "borderline", n=sizes.test),
        ],
    }


def _evidence(arm: Arm, model: LanguageModel, sizes: Sizes, tick: Tick) -> Evidence:
    sets = prompt_sets(sizes)
    if not arm.guarded:
        sets = {name: sets[name] for name in ("anchors", "test")}
    total = sum(len(prompts) for prompts in sets.values())
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tick(arm.name, done, total)

    sampler = sampler_of(arm, model)
    traces: Mapping[str, Traces] = {
        name: trace(model, prompts, sampler=sampler, batch_size=64, progress=advance)
        for name, prompts in sets.items()
    }
    return gather(
        arm,
        anchor_traces=traces["anchors"],
        test_traces=traces["test"],
        benign_traces=(traces["guard"], traces["calibration"]) if arm.guarded else None,
        decode=words_of(model),
        harmful=lambda goal, text: oracle.judge(goal, text) == "harmful",
    )


def _answered(evidence: Evidence, label: str, attack: str) -> dict[str, float]:
    chosen = evidence.rows(label=label, attack=attack)
    picked = [evidence.traces[int(i)] for i in np.flatnonzero(chosen)]
    right = [oracle.answered(one.prompt.goal, one.response) for one in picked]
    return {
        "capability": _round(np.mean(right)),
        "refused": _round(evidence.refused[chosen].mean()),
        **_shape(evidence.sigma[chosen]),
    }


def _attacked(evidence: Evidence, attack: str) -> dict[str, Any]:
    chosen = evidence.rows(label="harmful", attack=attack)
    refused, harmful = evidence.refused[chosen], evidence.succeeded[chosen]
    sigma = evidence.sigma[chosen]
    return {
        "refused": _round(refused.mean()),
        "harmful": _round(harmful.mean()),
        "neither": _round((~refused & ~harmful).mean()),
        "irr": {
            str(theta): _round(internal_recovery(sigma, threshold=theta).mean())
            for theta in IRR_THRESHOLDS
        },
        **_shape(sigma),
    }


def _shape(sigma: NDArray[np.float32]) -> dict[str, Any]:
    """Mean of sigma, and its mean absolute change from step to step."""
    if not len(sigma):
        return {}
    return {
        "sigma": _round(sigma.mean()),
        "volatility": _round(np.abs(np.diff(sigma, axis=1)).mean(), 4),
    }


def _detection(
    scores: NDArray[np.float32], benign: NDArray[np.bool_], broken: NDArray[np.bool_]
) -> dict[str, float]:
    pair = scores[benign], scores[broken]
    return {
        "auroc": _round(auroc(*pair, draws=10).value),
        "tpr_at_1_fpr": _round(tpr_at_fpr(*pair, fpr=0.01, draws=10).value),
    }


def _round(value: Any, digits: int = 3) -> float:
    return round(float(value), digits)
