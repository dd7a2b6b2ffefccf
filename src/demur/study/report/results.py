"""What a study's folder holds, read back. No model is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic

import numpy as np

from demur.errors import StoreError
from demur.study.engine.cells import Cell, CellOutcome, Result, Subject
from demur.study.engine.provenance import StudyManifest, read_manifest
from demur.study.engine.workspace import read_outcome
from demur.study.plan.arms import Arm, ArmGroup
from demur.study.report.evidence import Evidence, Scores, joined
from demur.study.work.defense import DefenseCell
from demur.study.work.guards import DelayCell, SurrogateCell
from demur.study.work.scenes import ReplayCell
from demur.study.work.scores import ScoresCell
from demur.study.work.suffix_attack import SuffixAttackCell
from demur.study.work.traces import TraceCell
from demur.study.work.verdicts import AnchorsCell, VerdictsCell

#: Kinds of cells that the report reads.
KINDS: tuple[type[Cell[Any]], ...] = (
    TraceCell,
    AnchorsCell,
    VerdictsCell,
    ScoresCell,
    DelayCell,
    DefenseCell,
    SurrogateCell,
    SuffixAttackCell,
    ReplayCell,
)


@dataclass(frozen=True)
class Measured(Generic[Result]):
    """A cell with its result, which is None unless the cell is done.

    ``error`` says why it failed; it is empty if the cell did not run.
    """

    subject: Subject
    result: Result | None
    error: str = ""


@dataclass(frozen=True)
class Results:
    """All results of a study.

    Attributes:
        evidence: one per arm, in the study's order, without arms that have no verdicts.
        measured: kind of cell -> its cells, for results that are not evidence of one arm.
    """

    manifest: StudyManifest
    evidence: tuple[Evidence, ...]
    measured: Mapping[str, Sequence[Measured[Any]]] = field(default_factory=dict)
    failures: tuple[CellOutcome, ...] = ()

    def of(self, kind: type[Cell[Result]]) -> Sequence[Measured[Result]]:
        """The cells of one kind."""
        return self.measured.get(kind.kind, ())

    def group(self, name: ArmGroup) -> list[Evidence]:
        """The arms of one group."""
        return [one for one in self.evidence if one.group == name]

    @property
    def main(self) -> list[Evidence]:
        """The main arm of each model."""
        return self.group("main")

    def arm(self, name: str) -> Evidence | None:
        """One arm by name."""
        return next((one for one in self.evidence if one.name == name), None)

    def first_sampler(self, model: str) -> str:
        """Name of the sampler of a model's main arm in the study file."""
        specs = self.manifest.study.models
        return next((spec.arms[0].name for spec in specs if spec.name == model), "")

    def failed_arms(self) -> dict[str, str]:
        """Arms without evidence -> why."""
        there = {one.name for one in self.evidence}
        causes = {one.arm: one.error for one in reversed(self.failures) if one.arm not in there}
        return {arm.name: causes[arm.name] for arm in self.manifest.arms if arm.name in causes}


def read_results(root: str | Path) -> Results:
    """Read a study's folder.

    Raises:
        InputError: no study was run there.
        StoreError: a file is damaged.
    """
    root, manifest = Path(root), read_manifest(root)
    cells = [(entry, read_outcome(root / "cells" / entry.place)) for entry in manifest.cells]
    kinds: dict[str, list[tuple[Subject, CellOutcome]]] = {}
    for entry, outcome in cells:
        kinds.setdefault(entry.kind, []).append((entry.subject, outcome))
    measured = {kind.kind: _measured(kind, kinds.get(kind.kind, ())) for kind in KINDS}
    judges = manifest.study.judges.refusal
    evidence = (_evidence(arm, judges, measured) for arm in manifest.arms)
    return Results(
        manifest=manifest,
        evidence=tuple(one for one in evidence if one is not None),
        measured=measured,
        failures=tuple(outcome for _, outcome in cells if outcome.state == "failed"),
    )


def _measured(
    kind: type[Cell[Any]], cells: Sequence[tuple[Subject, CellOutcome]]
) -> list[Measured[Any]]:
    try:
        return [
            Measured(about, one.result(kind) if one.state == "done" else None, one.error)
            for about, one in cells
        ]
    except ValueError as error:
        raise StoreError(
            f"A result of kind {kind.kind} is damaged. Remove its folder and run the study again."
        ) from error


def _evidence(
    arm: Arm, judges: Sequence[str], measured: Mapping[str, Sequence[Measured[Any]]]
) -> Evidence | None:
    def of(kind: type[Cell[Result]]) -> list[Measured[Result]]:
        return [one for one in measured[kind.kind] if one.subject.arm == arm.name]

    verdicts = of(VerdictsCell)
    there = [(one.subject.set, one.result) for one in verdicts if one.result is not None]
    if not there:
        return None
    failed = {one.subject.set: one.error for one in verdicts if one.error}
    evidence = Evidence(
        name=arm.name,
        model=arm.model,
        group=arm.group,
        fingerprint=next(one.result.fingerprint for one in of(TraceCell) if one.result is not None),
        rows=joined([found for _, found in there], judges),
        sets={name: len(found.ids) for name, found in there},
    )
    scores: dict[str, Scores] = {}
    for one in of(ScoresCell):
        about = one.subject
        if found := one.result:
            scores[about.detector] = Scores(
                name=about.detector,
                group=about.group,
                supervised=about.supervised,
                threshold=found.threshold,
                values=evidence.aligned(found.sets, np.nan),
                left_out={a: evidence.aligned(sets, np.nan) for a, sets in found.left_out.items()},
            )
        elif one.error:
            failed[about.detector] = one.error
    return replace(evidence, scores=scores, failed=failed)
