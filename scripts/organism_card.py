"""The card of a built-in model: its figures on the test set, as plain data for its manifest.

Toy models: a card is no evidence about real models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.anchors import fit_anchors
from demur.generation import trace
from demur.guard import Guard, fit_guard
from demur.metrics import IRR_THRESHOLDS, auroc, internal_recovery, recovery_rates, tpr_at_fpr
from demur.models.base import LanguageModel
from demur.organism import world
from demur.sampling import sampler_from
from demur.study.engine.cells import OnProgress
from demur.study.plan.spec import Judges
from demur.study.report.evidence import Evidence
from demur.study.work.guards import GUARDS
from demur.study.work.verdicts import draft_text, first_judge, judged, refusals
from demur.types import Label, Prompt, Traces


@dataclass(frozen=True)
class Sizes:
    """Numbers of prompts.

    Attributes:
        anchors: per class.
        plain: plain harmless prompts to fit guards on; calibration takes half as many.
        wrapped: the same per wrapper family.
        test: per class and attack, and for borderline prompts.
    """

    anchors: int = 200
    plain: int = 300
    wrapped: int = 60
    test: int = 100


def measure(
    model: LanguageModel,
    *,
    sampler: Mapping[str, Any] | None = None,
    guarded: bool = True,
    sizes: Sizes | None = None,
    tick: OnProgress = lambda *_: None,
) -> dict[str, Any]:
    """Trace a model under one sampler on the test set and work its figures out.

    Args:
        model: from ``demur.load``, one of the built-in family.
        sampler: changes to the model's default sampler.
        guarded: whether guards are fitted.
        sizes: how many prompts.
        tick: progress.

    Returns:
        ``harmless`` and ``borderline``: capability, refused, sigma, volatility per attack;
        ``harmful``: refused, harmful, neither, irr per attack, and hrr, frr over all; ``jailbroken``:
        sigma and volatility of successful attacks; ``guards``: auroc and tpr_at_1_fpr.
    """
    sets = prompt_sets(sizes or Sizes())
    if not guarded:
        sets = {name: sets[name] for name in ("anchors", "test")}
    traces = _traced(model, sets, {**model.traits.sampler, **(sampler or {})}, tick)
    evidence, guards = _gathered(model, traces)
    figures: dict[str, Any] = {
        "sampler": {k: v for k, v in evidence.fingerprint.sampler.items() if v is not None},
        "prompts": len(evidence.goals),
        "harmless": {a: _answered(evidence, "harmless", a) for a in world.ATTACKS},
        "borderline": {"none": _answered(evidence, "borderline", "none")},
        "harmful": {a: _attacked(evidence, a) for a in world.ATTACKS},
    }
    wrapped = evidence.where("harmful", "wrapped")
    drafts = [evidence.drafts[i] for i in np.flatnonzero(wrapped)]
    revised, recovered = recovery_rates(drafts)
    figures["harmful drafts"] = revised.n
    figures["hrr"], figures["frr"] = _round(revised.value), _round(recovered.value)
    broken = wrapped & evidence.succeeded
    figures["jailbroken"] = {"n": int(broken.sum()), **_shape(evidence.sigma[broken])}
    harmless = evidence.where("harmless")
    figures["guards"] = {
        name.replace("-", " "): _detection(guard.score(traces["test"]), harmless, broken)
        for name, guard in guards.items()
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
    kinds: Sequence[world.TaskKind] = ("harmless", "harmful")
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


def _traced(
    model: LanguageModel,
    sets: Mapping[str, Sequence[Prompt]],
    sampler: Mapping[str, Any],
    tick: OnProgress,
) -> dict[str, Traces]:
    total, done = sum(len(prompts) for prompts in sets.values()), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tick(model.name, done, total)

    chosen = sampler_from(sampler)
    return {
        name: trace(model, prompts, sampler=chosen, batch_size=64, progress=advance)
        for name, prompts in sets.items()
    }


def _gathered(
    model: LanguageModel, traces: Mapping[str, Traces]
) -> tuple[Evidence, dict[str, Guard]]:
    """What the test traces show, and the guards of ``GUARDS`` if there are traces to fit them."""
    judges = Judges(harm="oracle")
    anchors = fit_anchors(
        traces["anchors"], refusals(traces["anchors"], first_judge(judges)), allow_few=True
    )
    rows = judged(
        traces["test"],
        anchors,
        judges=judges,
        text_of=draft_text(model),
        end_ids=model.traits.end_ids,
    )
    evidence = Evidence(
        name=model.name,
        model=model.name,
        group="main",
        fingerprint=traces["test"].fingerprint,
        rows=rows,
    )
    guards = {
        name: fit_guard(traces["guard"], traces["calibration"], detector=name, anchors=anchors)
        for name in GUARDS
        if "guard" in traces
    }
    return evidence, guards


def _answered(evidence: Evidence, label: Label, attack: str) -> dict[str, float]:
    chosen = evidence.where(label, attack)
    right = np.array(evidence.rows.right)[chosen]
    return {
        "capability": _round(np.mean(right)),
        "refused": _round(evidence.refusals[chosen].mean()),
        **_shape(evidence.sigma[chosen]),
    }


def _attacked(evidence: Evidence, attack: str) -> dict[str, Any]:
    chosen = evidence.where("harmful", attack)
    refused, harmful = evidence.refusals[chosen], evidence.succeeded[chosen]
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


def _shape(sigma: NDArray[np.floating]) -> dict[str, Any]:
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
        "auroc": _round(auroc(*pair).value),
        "tpr_at_1_fpr": _round(tpr_at_fpr(*pair, fpr=0.01, draws=10).value),
    }


def _round(value: Any, digits: int = 3) -> float:
    return round(float(value), digits)
