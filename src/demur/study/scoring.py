"""Cells that fit a detector on benign traces and score every other set with it.

A threshold is always the conformal quantile of scores on held-out benign prompts. Supervised
detectors are fitted once on every attack and once for each attack without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from demur.detectors import DETECTORS, DetectionMethod, Detector, of_signals
from demur.detectors.autoencoder import Autoencoder, fit_autoencoder
from demur.guard import threshold_rank
from demur.sri import Anchors, fit_anchors
from demur.study.cells import Cell, Desk
from demur.study.judging import refusal_judges
from demur.study.locating import Located
from demur.study.spec import Ablation, Judges, Role
from demur.study.tracing import Arm
from demur.study.verdicts import anchors_at, refusals
from demur.types import Traces

VERSION = 1

#: Detectors that are fitted on plain benign prompts alone, too.
PLAIN = ("sri", "sri-standardised")


@dataclass(frozen=True)
class Recipe:
    """One way of scoring.

    Attributes:
        name: what tables call it.
        method: how the detector is fitted.
        group: which table it is for.
        benign: fitted and calibrated on plain benign prompts alone, or on wrapped ones too.
        anchors: prompts a class that the anchors are over; all when None; ``elsewhere`` for those
            of the study's other distribution.
    """

    name: str
    method: DetectionMethod = field(repr=False)
    group: Literal["detector", "ablation"] = "detector"
    benign: Literal["all", "plain"] = "all"
    anchors: int | Literal["elsewhere"] | None = None


@dataclass(frozen=True)
class Traced:
    """One set of an arm and the cell that traces it."""

    name: str
    role: Role
    cell: Cell


def detector_recipes(names: Sequence[str]) -> Iterator[Recipe]:
    """The named methods; the paper's also fitted on plain prompts alone."""
    from demur.detectors import detection_method

    for name in names:
        yield Recipe(name, detection_method(name))
        if name in PLAIN:
            yield Recipe(f"{name}, fitted on plain", detection_method(name), benign="plain")


def ablation_recipes(settings: Ablation, *, most: int) -> Iterator[Recipe]:
    """The paper's detector with one thing changed at a time; ``most`` anchor prompts a class."""
    paper = DETECTORS["sri"]
    for tau in settings.tau:
        yield Recipe(f"tau = {tau:g}", _reading(tau=tau), "ablation")
    for steps in settings.steps:
        yield Recipe(f"first {steps} steps", _reading(first=steps), "ablation")
    for count in settings.anchors:
        if count <= most:
            yield Recipe(f"anchors of {count}", paper, "ablation", anchors=count)
    yield Recipe("anchors of other prompts", paper, "ablation", anchors="elsewhere")


def scores_cell(
    arm: Arm,
    recipe: Recipe,
    traced: Sequence[Traced],
    anchors: Cell,
    elsewhere: Cell | None,
    *,
    judges: Judges,
    alpha: float,
    seed: int,
    reader: Located | None,
) -> Cell:
    """Scores of every set by one detector.

    Args:
        arm: whose traces.
        recipe: the detector.
        traced: every set of the arm.
        anchors: the arm's anchors; ``elsewhere`` are those of the other distribution.
        judges: the first refusal judge says which traces anchors are over.
        alpha: of the threshold.
        seed: of the fit.
        reader: the model that reads prompts, if there is one.
    """
    by_role = {one.role: [t for t in traced if t.role == one.role] for one in traced}
    scored = [*by_role.get("calibration", ()), *by_role["test"]]
    fitted = [cell for part in ("fit", "calibration") for cell in _cells(by_role, part)]
    harmful = _cells(by_role, "harmful") if recipe.method.supervised else []

    def work(desk: Desk) -> Mapping[str, Any]:
        reference = _anchors(desk, arm, recipe, by_role, anchors, elsewhere, judges)
        benign = _benign(desk.traces(*_cells(by_role, "fit")), recipe)
        bad = desk.traces(*harmful) if harmful else None
        model = desk.of(reader) if recipe.method.needs_model and reader else None
        fit = partial(recipe.method.fit, benign, anchors=reference, model=model, seed=seed)
        detector = fit(harmful=bad)
        sets = {t.name: desk.traces(t.cell) for t in scored if desk.there([t.cell])}
        held_out = _benign(desk.traces(*_cells(by_role, "calibration")), recipe)
        calibration = np.sort(detector.score(held_out))
        return {
            "threshold": float(calibration[-threshold_rank(len(calibration), alpha)]),
            "sets": {name: _numbers(detector.score(traces)) for name, traces in sets.items()},
            "left out": {
                attack: _left_out(fit(harmful=_without(bad, attack)), sets)
                for attack in ({t.prompt.attack for t in bad} if bad else ())
                if attack != "none"
            },
        }

    needed = (anchors, *fitted, *harmful)
    if recipe.anchors == "elsewhere":
        assert elsewhere is not None
        needed = (elsewhere, *needed)
    return Cell(
        kind="scores",
        name=f"{arm.name}, {recipe.name}",
        inputs={
            "recipe": [recipe.name, recipe.group, recipe.benign, recipe.anchors],
            "alpha": alpha,
            "seed": seed,
            "reader": reader.identity if recipe.method.needs_model and reader else "",
            "version": VERSION,
        },
        work=work,
        needs=needed,
        wants=tuple(_cells(by_role, "test")),
        units=sum(one.cell.units for one in (*by_role.get("fit", ()), *scored)),
        pace=0.0005,
        arm=arm.name,
        about={
            "arm": arm.name,
            "detector": recipe.name,
            "group": recipe.group,
            "supervised": recipe.method.supervised,
        },
    )


def _anchors(
    desk: Desk,
    arm: Arm,
    recipe: Recipe,
    by_role: Mapping[Role, Sequence[Traced]],
    anchors: Cell,
    elsewhere: Cell | None,
    judges: Judges,
) -> dict[str, Anchors]:
    """Layer -> anchors, as the recipe wants them."""
    if recipe.anchors == "elsewhere" and elsewhere is not None:
        return {layer: anchors_at(desk, elsewhere, layer) for layer in arm.layers}
    if not isinstance(recipe.anchors, int):
        return {layer: anchors_at(desk, anchors, layer) for layer in arm.layers}
    traces = desk.traces(*_cells(by_role, "anchors"))
    labels = np.array([t.prompt.label for t in traces])
    first = [np.flatnonzero(labels == label)[: recipe.anchors] for label in np.unique(labels)]
    chosen = Traces(tuple(traces[int(i)] for i in np.concatenate(first)))
    refused = refusals(chosen, refusal_judges(judges)[judges.refusal[0]])
    return {"last": fit_anchors(chosen, refused)}


def _benign(traces: Traces, recipe: Recipe) -> Traces:
    if recipe.benign == "all":
        return traces
    return Traces(tuple(t for t in traces if t.prompt.attack == "none"))


def _without(traces: Traces | None, attack: str) -> Traces | None:
    return traces and Traces(tuple(t for t in traces if t.prompt.attack != attack))


def _left_out(detector: Detector, sets: Mapping[str, Traces]) -> dict[str, list[float]]:
    return {name: _numbers(detector.score(traces)) for name, traces in sets.items()}


def _cells(by_role: Mapping[Role, Sequence[Traced]], role: Role) -> list[Cell]:
    return [one.cell for one in by_role.get(role, ())]


def _numbers(values: NDArray[np.float32]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _reading(**settings: Any) -> DetectionMethod:
    """The paper's autoencoder on another reading of the states."""
    build = of_signals(lambda signals, seed: fit_autoencoder(signals, seed=seed), **settings)
    return DetectionMethod("sri", "", "", Autoencoder, build, layers=("last",))
