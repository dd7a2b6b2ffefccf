"""What a study's folder holds, read back: the evidence of each arm and what else was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from demur.errors import InputError, StoreError
from demur.study.cells import Outcome
from demur.study.evidence import Evidence, Scores

#: A study's folder holds this beside its cells.
MANIFEST = "study.json"


@dataclass(frozen=True)
class Measured:
    """A finished or failed cell with what it is of."""

    about: Mapping[str, Any]
    outcome: Outcome

    @property
    def value(self) -> Mapping[str, Any]:
        """Its result; empty when it failed."""
        return self.outcome.value


@dataclass(frozen=True)
class Results:
    """All of a study.

    Attributes:
        manifest: the study, commands, versions and machine.
        evidence: one an arm, in the study's order; arms without any verdict are left out.
        measured: kind -> its cells, for what is not evidence of one arm.
        failures: cells that failed.
    """

    manifest: Mapping[str, Any]
    evidence: tuple[Evidence, ...]
    measured: Mapping[str, Sequence[Measured]] = field(default_factory=dict)
    failures: tuple[Outcome, ...] = ()

    def group(self, name: str) -> list[Evidence]:
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
        """What the study calls the sampler of a model's main arm; empty when it gives no name."""
        for one in self.manifest["study"].get("models", ()):
            if one["name"] == model:
                return next(
                    (str(arm["name"]) for arm in one.get("arms", ()) if arm.get("name")), ""
                )
        return ""

    def failed_arms(self) -> dict[str, str]:
        """Arms of which there is no evidence -> why."""
        there = {one.name for one in self.evidence}
        causes = {one.arm: one.error for one in reversed(self.failures) if one.arm not in there}
        order = [arm["name"] for arm in self.manifest["arms"]]
        return {name: causes[name] for name in order if name in causes}


def read_results(root: str | Path) -> Results:
    """Read a study's folder.

    Raises:
        InputError: no study was run there.
        StoreError: a file is damaged.
    """
    root = Path(root)
    try:
        manifest = json.loads((root / MANIFEST).read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"No study in {root}. Make one with: demur study run STUDY.yaml --out {root}"
        ) from error
    except ValueError as error:
        raise StoreError(f"{root / MANIFEST} is damaged. Run the study again.") from error
    cells = [
        Measured(entry["about"], _outcome(root, entry["place"])) for entry in manifest["cells"]
    ]
    kinds: dict[str, list[Measured]] = {}
    for entry, cell in zip(manifest["cells"], cells, strict=True):
        kinds.setdefault(entry["kind"], []).append(cell)
    judges = manifest["study"]["judges"]["refusal"]
    evidence = (_evidence(arm, kinds, judges) for arm in manifest["arms"])
    return Results(
        manifest=manifest,
        evidence=tuple(one for one in evidence if one is not None),
        measured=kinds,
        failures=tuple(c.outcome for c in cells if c.outcome.state == "failed"),
    )


def _outcome(root: Path, place: str) -> Outcome:
    path = root / "cells" / place / "cell.json"
    try:
        return Outcome(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return Outcome()
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is damaged. Remove it and run the study again.") from error


def _of(kinds: Mapping[str, Sequence[Measured]], kind: str, arm: str) -> Iterator[Measured]:
    return (cell for cell in kinds.get(kind, ()) if cell.about.get("arm") == arm)


def _evidence(
    arm: Mapping[str, Any], kinds: Mapping[str, Sequence[Measured]], judges: Sequence[str]
) -> Evidence | None:
    cells = [*_of(kinds, "verdicts", arm["name"])]
    there = [cell for cell in cells if cell.outcome.state == "done"]
    if not there:
        return None
    traced = next(c for c in _of(kinds, "traces", arm["name"]) if c.outcome.state == "done")
    values = [cell.value for cell in there]
    plain = [name for name in values[0] if name not in ("refused", "sigma")]
    failed = {str(c.about["set"]): c.outcome.error for c in cells if c.outcome.state == "failed"}
    evidence = Evidence(
        name=arm["name"],
        model=arm["model"],
        group=arm["group"],
        fingerprint=traced.value["fingerprint"],
        columns={name: [item for value in values for item in value[name]] for name in plain},
        refused={
            judge: np.array([hit for value in values for hit in value["refused"][judge]], bool)
            for judge in judges
        },
        sigma=np.array([row for value in values for row in value["sigma"]], np.float64),
        sets={str(cell.about["set"]): len(cell.value["ids"]) for cell in there},
    )
    scores: dict[str, Scores] = {}
    for cell in _of(kinds, "scores", arm["name"]):
        if cell.outcome.state == "done":
            scores[str(cell.about["detector"])] = _scores(cell, evidence)
        elif cell.outcome.state == "failed":
            failed[str(cell.about["detector"])] = cell.outcome.error
    return replace(evidence, scores=scores, failed=failed)


def _scores(cell: Measured, evidence: Evidence) -> Scores:
    return Scores(
        name=str(cell.about["detector"]),
        group=str(cell.about["group"]),
        supervised=bool(cell.about["supervised"]),
        threshold=float(cell.value["threshold"]),
        values=evidence.aligned(cell.value["sets"], np.nan),
        left_out={
            attack: evidence.aligned(sets, np.nan)
            for attack, sets in cell.value["left out"].items()
        },
    )
