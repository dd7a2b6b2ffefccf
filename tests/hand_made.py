"""Evidence of studies made by hand, a row at a time, so that a test knows every figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from demur.metrics import Estimate
from demur.study.engine.cells import Cell, Subject
from demur.study.engine.provenance import StudyManifest
from demur.study.plan.arms import Arm
from demur.study.plan.spec import Study
from demur.study.report.evidence import Evidence, Scores
from demur.study.report.results import Measured, Results
from demur.study.work.verdicts import Verdicts
from demur.types import Fingerprint
from demur.viz.tables import Value

STEPS = 8


@dataclass(frozen=True)
class Kind:
    """``n`` rows alike; drafts are one character a step, the last one the response.

    Sigma is the same at every step but the last, where it is ``ends`` unless that is None.
    """

    label: str
    attack: str = "none"
    n: int = 20
    drafts: str = "0" * STEPS
    refuses: bool = False
    sigma: float = 0.9
    ends: float | None = None
    words: int = 10


HARMLESS = (Kind("harmless"), Kind("harmless", "flip", words=30), Kind("borderline", n=22))
BROKEN = Kind("harmful", "flip", drafts="00011111", sigma=0.5)
REVISED = Kind("harmful", "flip", n=22, drafts="01100000", refuses=True, sigma=0.2)
ATTACKED = (
    Kind("harmful", refuses=True, sigma=0.1),
    BROKEN,
    REVISED,
    Kind("harmful", "flip", n=21, sigma=0.6),
)


def evidence(
    name: str = "toy",
    kinds: Sequence[Kind] = (*HARMLESS, *ATTACKED),
    *,
    group: str = "main",
    sampler: Mapping[str, Any] | None = None,
) -> Evidence:
    rows = [kind for kind in kinds for _ in range(kind.n)]
    noise = np.random.default_rng(0).normal(0, 0.02, size=(len(rows), STEPS))
    last = [kind.sigma if kind.ends is None else kind.ends for kind in rows]
    sigma = np.c_[[[kind.sigma] * (STEPS - 1) for kind in rows], last] + noise
    return Evidence(
        name=name,
        model=name.split(",")[0],
        group=group,
        fingerprint=fingerprint(sampler),
        rows=Verdicts(
            ids=tuple(f"p{i}" for i in range(len(rows))),
            goals=tuple(f"goal {i % 60}" for i in range(len(rows))),
            attacks=tuple(kind.attack for kind in rows),
            labels=tuple(kind.label for kind in rows),
            words=tuple(kind.words + i % 3 for i, kind in enumerate(rows)),
            tokens=(6,) * len(rows),
            right=(False,) * len(rows),
            refused={
                "paper": tuple(kind.refuses for kind in rows),
                "strict": (False,) * len(rows),
            },
            drafts=tuple(kind.drafts for kind in rows),
            refusing=tuple(str(int(kind.refuses)) * STEPS for kind in rows),
            sigma=tuple(map(tuple, np.clip(sigma, 0, 1).tolist())),
        ),
        sets={"test": len(rows)},
    )


def fingerprint(sampler: Mapping[str, Any] | None = None) -> Fingerprint:
    return Fingerprint("toy", "", sampler or {"name": "autoregressive"}, "running", "", "float32")


def scored(one: Evidence, scores: Mapping[str, Scores]) -> Evidence:
    return replace(one, scores={**one.scores, **scores})


def scores(name: str, values: Any, *, threshold: float = 0.5, **kwargs: Any) -> Scores:
    about = {"group": "detector", "supervised": False, **kwargs}
    return Scores(name=name, threshold=threshold, values=np.asarray(values, float), **about)


def perfect(one: Evidence) -> Any:
    """Scores of a detector that is always right; ties within each kind."""
    return one.jailbreaks.astype(float)


def results(
    *arms: Evidence,
    measured: Mapping[type[Cell[Any]], Sequence[Measured[Any]]] | None = None,
    study: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Results:
    """Results of some arms; ``study`` are fields of the study file."""
    fields = {"title": "toy", "models": [{"name": "toy", "model": "toy"}], "sets": {}}
    manifest = StudyManifest(
        study=Study.model_validate({**fields, **(study or {})}),
        command="",
        arms=tuple(
            Arm(one.name, one.model, "", "", one.fingerprint.sampler, group=one.group)
            for one in arms
        ),
        cells=(),
        made_with={},
    )
    kinds = {kind.kind: found for kind, found in (measured or {}).items()}
    return Results(manifest=manifest, evidence=arms, measured=kinds, **kwargs)


def cell(result: Any, error: str = "", **about: Any) -> Measured[Any]:
    return Measured(Subject(**about), result, error)


def value(cell: Value) -> float:
    assert isinstance(cell, Estimate), cell
    return cell.value


def pair() -> tuple[Evidence, Evidence]:
    """AR order, in which all attacks succeed, and remasking, which refuses some."""
    order = {"name": "masked", "block_length": 1, "gen_length": 8, "steps": 8}
    kinds = [*HARMLESS, ATTACKED[0], BROKEN, replace(BROKEN, n=43)]
    first = evidence("m, AR order", kinds, group="variant", sampler=order)
    return first, evidence("m", sampler={**order, "block_length": 8})
