"""The whole work of a study as cells, in an order in which every cell follows those it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from demur.errors import DemurError
from demur.models.checkpoint import find
from demur.prompts import read_prompts
from demur.study.adapting import adaptive_cell
from demur.study.cells import Cell
from demur.study.defending import defense_cell
from demur.study.reading import surrogate_cell
from demur.study.replaying import replay_cell
from demur.study.scoring import Traced, ablation_recipes, detector_recipes, scores_cell
from demur.study.sets import Set, prompt_sets
from demur.study.spec import ModelSpec, Study
from demur.study.tracing import Arm, trace_cell
from demur.study.verdicts import anchors_cell, verdicts_cell
from demur.study.watching import delay_cell, guards_cell

#: Positions of a response under the samplers of a continuum, where the model's card names none.
_LENGTH = 128


def cells_of(study: Study, folder: Path) -> list[Cell]:
    """Every cell of the study.

    Args:
        study: what to do.
        folder: of its relative paths.

    Raises:
        InputError: a prompt file cannot be read.
    """
    reader = _reader(study, folder)
    cells: list[Cell] = []
    arms: list[tuple[Arm, list[Cell]]] = []
    for spec in study.models:
        for arm in arms_of(study, spec, folder):
            made = [*_arm_cells(study, spec, arm, folder, reader)]
            cells += made
            arms.append((arm, made))
    return [*cells, *_replays(arms, study.judges.refusal[0])]


def _replays(arms: Sequence[tuple[Arm, list[Cell]]], judge: str) -> Iterator[Cell]:
    """Replays of the first main arm, of the first one of a diffusion model, and of its AR order."""
    mains = [pair for pair in arms if pair[0].group == "main"]
    second = next((p for p in mains if p[0].family != mains[0][0].family), None)
    if second is None:
        return
    variants = [p for p in arms if p[0].group == "variant" and p[0].model == second[0].model]
    ordered = [p for p in variants if p[0].ar_order]
    shown = (mains[0], second, *ordered[:1])
    yield replay_cell([(arm, *_told(made)) for arm, made in shown], judge=judge)


def _told(made: Sequence[Cell]) -> tuple[Cell, list[tuple[Cell, Cell]]]:
    """The anchors of an arm's cells, and traces and verdicts of each of its test sets."""
    anchors = next(cell for cell in made if cell.kind == "anchors")
    verdicts = [cell for cell in made if cell.kind == "verdicts"]
    return anchors, [(cell.needs[0], cell) for cell in verdicts]


def arms_of(study: Study, spec: ModelSpec, folder: Path) -> Iterator[Arm]:
    """The model's own arms, and those that the continuum and the ablations add."""
    location, identity, length, family = _located(spec, folder)

    def arm(name: str, **settings: Any) -> Arm:
        settings |= {"revision": spec.revision, "family": family}
        return Arm(name, spec.name, location, identity, **settings)

    first, *others = spec.arms
    yield arm(spec.name, sampler=first.sampler, layers=study.layers)
    for other in others:
        yield arm(f"{spec.name}, {other.name}", sampler=other.sampler, group="variant")
    if study.continuum and spec.name in study.continuum.models:
        for block in study.continuum.blocks:
            settings = {"block_length": block, "steps": length}
            yield arm(f"{spec.name}, blocks of {block}", sampler=settings, group="continuum")
        for commits in study.continuum.commits:
            settings = {"block_length": length, "steps": length // commits}
            name = f"{spec.name}, {commits} a step"
            yield arm(name, sampler=settings, group="continuum")
    if study.ablation and spec.name in study.ablation.models:
        for pooling in study.ablation.poolings.get(spec.name, ()):
            name = f"{spec.name}, pooling {pooling}"
            yield arm(name, sampler=first.sampler, pooling=pooling, group="pooling")


def _arm_cells(
    study: Study, spec: ModelSpec, arm: Arm, folder: Path, reader: tuple[str, str]
) -> Iterator[Cell]:
    whole = arm.group in ("main", "pooling")
    sets = prompt_sets(study, folder, spec, main=whole)
    traced: list[Traced] = []
    for chosen in sets:
        if chosen.role != "infilling":
            made = trace_cell(arm, chosen, seed=study.seed, batch_size=study.batch_size)
            yield from made
            traced.append(Traced(chosen.name, chosen.role, made[-1]))
    judges = study.judges
    anchors = anchors_cell(arm, _role(traced, "anchors"), judges=judges)
    yield anchors
    for one in traced:
        if one.role == "test":
            yield verdicts_cell(arm, one.cell, anchors, judges=judges)
    if whole and _role(traced, "calibration"):
        yield from _scores(study, arm, traced, anchors, reader)
    if arm.group == "main" and _role(traced, "calibration"):
        yield from _guarded(study, spec, arm, sets, traced, anchors, folder, reader)


def _guarded(
    study: Study,
    spec: ModelSpec,
    arm: Arm,
    sets: Sequence[Set],
    traced: Sequence[Traced],
    anchors: Cell,
    folder: Path,
    reader: tuple[str, str],
) -> Iterator[Cell]:
    """Guards, how soon they detect, and what stands behind or against them."""
    benign = _role(traced, "fit"), _role(traced, "calibration")
    guards = guards_cell(arm, anchors, *benign, alpha=study.alpha, seed=study.seed)
    yield guards
    yield delay_cell(arm, anchors, *benign, _role(traced, "test"), alpha=study.alpha)
    common: dict[str, Any] = {
        "judges": study.judges,
        "seed": study.seed,
        "batch_size": study.batch_size,
    }
    held_out = [p for one in sets if one.role == "calibration" for p in one.prompts]
    some = max(1, ceil(study.defended * spec.share))
    defended = [p for one in sets if one.role == "test" for p in one.prompts[:some]]
    infilling = [one for one in sets if one.role == "infilling"]
    for defense in study.defenses:
        if spec.name in (defense.models or (spec.name,)):
            yield defense_cell(
                arm, defense, defended, infilling, guards, held_out, reader=reader, **common
            )
    yield from _surrogates(study, arm, traced, folder)
    if study.adaptive and spec.name in study.adaptive.models:
        goals = read_prompts(study.adaptive.source, limit=study.adaptive.goals)
        for search in study.adaptive.searches:
            yield adaptive_cell(arm, search, goals, guards, **common)


def _surrogates(study: Study, arm: Arm, traced: Sequence[Traced], folder: Path) -> Iterator[Cell]:
    for pair in study.surrogates:
        if pair.black == arm.model:
            white = next(model for model in study.models if model.name == pair.white)
            yield surrogate_cell(
                (white.name, *_located(white, folder)[:2]),
                arm.name,
                traced,
                judges=study.judges,
                alpha=study.alpha,
                seed=study.seed,
                batch_size=study.batch_size,
            )


def _scores(
    study: Study, arm: Arm, traced: Sequence[Traced], anchors: Cell, reader: tuple[str, str]
) -> Iterator[Cell]:
    elsewhere = None
    recipes = [*detector_recipes(study.detectors if arm.group == "main" else ("sri",))]
    if other := _role(traced, "elsewhere"):
        elsewhere = anchors_cell(arm, other, judges=study.judges, name=f"{arm.name}, elsewhere")
        yield elsewhere
    if arm.group == "main" and study.ablation and arm.model in study.ablation.models:
        most = sum(cell.units for cell in _role(traced, "anchors")) // 2
        recipes += [
            recipe
            for recipe in ablation_recipes(study.ablation, most=most)
            if elsewhere or recipe.anchors != "elsewhere"
        ]
    for recipe in recipes:
        yield scores_cell(
            arm,
            recipe,
            traced,
            anchors,
            elsewhere,
            judges=study.judges,
            alpha=study.alpha,
            seed=study.seed,
            reader=reader,
        )


def _role(traced: Sequence[Traced], role: str) -> list[Cell]:
    return [one.cell for one in traced if one.role == role]


def _reader(study: Study, folder: Path) -> tuple[str, str]:
    """Location and identity of the model that reads prompts."""
    if not study.reader:
        return "", ""
    spec = next(model for model in study.models if model.name == study.reader)
    return _located(spec, folder)[:2]


def _located(spec: ModelSpec, folder: Path) -> tuple[str, str, int, str]:
    """Where a model is, the hash of its config and weights, its response's length, and its kind.

    A model that is not there is found missing by the cells that load it.
    """
    beside = folder / spec.model
    location = str(beside) if (beside / "config.json").is_file() else spec.model
    try:
        found = find(location, revision=spec.revision)
    except DemurError:
        return location, "", _LENGTH, ""
    sampler: Mapping[str, Any] = found.card.get("sampler", {})
    kind = str(found.card.get("family", found.config.get("model_type", "")))
    return location, found.revision, int(sampler.get("gen_length", _LENGTH)), kind
