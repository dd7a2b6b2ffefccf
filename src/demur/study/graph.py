"""The whole work of a study as cells, in an order in which every cell follows those it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from demur.study.adapting import adaptive_cell
from demur.study.cells import Cell
from demur.study.defending import Asked, defense_cell
from demur.study.locating import Located
from demur.study.pooling import pooled_cell
from demur.study.reading import surrogate_cell
from demur.study.replaying import replay_cell
from demur.study.scoring import Traced, ablation_recipes, detector_recipes, scores_cell
from demur.study.sets import Set, one_a_goal, prompt_sets, read_source
from demur.study.spec import ModelSpec, Study
from demur.study.tracing import Arm, is_ar_order, trace_cell
from demur.study.verdicts import anchors_cell, verdicts_cell
from demur.study.watching import delay_cell, guards_cell
from demur.types import Prompt

#: Sets that another pooling needs: its anchors, the paper's detector, and what it is tested on.
_POOLED = ("anchors", "fit", "calibration", "test")

#: Prompts that are read for each goal to attack, since several may share one.
_SPARE = 4


@dataclass(frozen=True)
class Work:
    """One arm and what its cells are made from.

    Attributes:
        study, folder, models: of the study.
        spec: the arm's model.
        arm: the arm.
        sets: its prompts.
        traced: a cell for each of them but those for infilling.
        anchors: its anchors.
        planned: whether stand-ins take the place of prompt files that are missing.
    """

    study: Study
    folder: Path
    models: Mapping[str, Located]
    spec: ModelSpec
    arm: Arm
    sets: Sequence[Set]
    traced: Sequence[Traced]
    anchors: Cell
    planned: bool = False

    @property
    def reader(self) -> Located | None:
        """The model that reads prompts."""
        return self.models[self.study.reader] if self.study.reader else None

    @property
    def batch_size(self) -> int:
        """Prompts that the model takes together."""
        return self.spec.batch_size or self.study.batch_size

    def role(self, role: str) -> list[Cell]:
        """The traces of one role."""
        return [one.cell for one in self.traced if one.role == role]

    def prompts(self, role: str) -> list[Prompt]:
        """The prompts of one role, before any attack."""
        return [p for one in self.sets if one.role == role for p in one.prompts]

    def defended(self, most: int) -> list[Asked]:
        """The first test prompts of each set, or the cell that attacks them."""
        attacks = {one.name: one.cell.needs for one in self.traced}
        tests = (one for one in self.sets if one.role == "test")
        return [Asked(one.prompts, most, *attacks[one.name][:1]) for one in tests]


def cells_of(
    study: Study, folder: Path, models: Mapping[str, Located], *, planned: bool = False
) -> list[Cell]:
    """Every cell of the study.

    Args:
        study: what to do.
        folder: of its relative paths.
        models: where its models are.
        planned: let stand-ins take the place of prompt files that are missing.

    Raises:
        InputError: a prompt file cannot be read, or two sets are the same.
    """
    cells: list[Cell] = []
    arms: list[tuple[Arm, list[Cell]]] = []
    for spec in study.models:
        traced: list[Traced] = []
        for arm in _arms_of(study, spec, models[spec.name]):
            made = [*_arm_cells(study, spec, arm, folder, models, traced, planned=planned)]
            if arm.group == "main":
                traced = [
                    Traced(str(c.about["set"]), c.about["role"], c)
                    for c in made
                    if c.kind == "traces"
                ]
            cells += made
            arms.append((arm, made))
    return [*cells, *_replays(arms, study.judges.refusal[0])]


def arms_of(study: Study, models: Mapping[str, Located]) -> list[Arm]:
    """Every arm of the study: each model's own, and those that the continuum and ablations add."""
    return [arm for spec in study.models for arm in _arms_of(study, spec, models[spec.name])]


def _arms_of(study: Study, spec: ModelSpec, at: Located) -> Iterator[Arm]:
    default = at.sampler or {}

    def arm(name: str, sampler: Mapping[str, Any], **settings: Any) -> Arm:
        same = sampler.get("name", default.get("name")) == default.get("name")
        return Arm(
            name,
            spec.name,
            at.location,
            at.identity,
            sampler={**default, **sampler} if same else sampler,
            options=at.options,
            family=at.family,
            **settings,
        )

    first, *others = spec.arms
    yield arm(spec.name, first.sampler, layers=study.layers)
    for other in others:
        yield arm(f"{spec.name}, {other.name}", other.sampler, group="variant")
    if study.continuum and spec.name in study.continuum.models:
        for block in study.continuum.blocks:
            settings = {"block_length": block, "steps": at.length}
            yield arm(f"{spec.name}, blocks of {block}", settings, group="continuum")
        for commits in study.continuum.commits:
            settings = {"block_length": at.length, "steps": at.length // commits}
            yield arm(f"{spec.name}, {commits} a step", settings, group="continuum")
    if study.ablation and spec.name in study.ablation.models:
        for pooling in study.ablation.poolings.get(spec.name, ()):
            name = f"{spec.name}, pooling {pooling}"
            yield arm(name, first.sampler, pooling=pooling, group="pooling")


def _arm_cells(
    study: Study,
    spec: ModelSpec,
    arm: Arm,
    folder: Path,
    models: Mapping[str, Located],
    first: Sequence[Traced],
    *,
    planned: bool,
) -> Iterator[Cell]:
    """Cells of one arm; ``first`` is what the model's first arm has traced."""
    sets: list[Set] = []
    traced: list[Traced] = []
    size = spec.batch_size or study.batch_size
    if arm.group == "pooling":
        for one in first:
            if one.role in _POOLED:
                cell = pooled_cell(arm, one.cell, batch_size=size)
                yield cell
                traced.append(Traced(one.name, one.role, cell))
    else:
        sets = prompt_sets(study, folder, spec, main=arm.group == "main", planned=planned)
        for chosen in sets:
            if chosen.role != "infilling":
                made = trace_cell(arm, chosen, seed=study.seed, batch_size=size)
                yield from made
                traced.append(Traced(chosen.name, chosen.role, made[-1]))
    anchored = [one.cell for one in traced if one.role == "anchors"]
    anchors = anchors_cell(arm, anchored, judges=study.judges)
    yield anchors
    work = Work(study, folder, models, spec, arm, sets, traced, anchors, planned)
    for cell in work.role("test"):
        yield verdicts_cell(arm, cell, anchors, judges=study.judges)
    if arm.group in ("main", "pooling") and work.role("calibration"):
        yield from _scores(work)
    if arm.group == "main" and work.role("calibration"):
        yield from _guarded(work)


def _scores(work: Work) -> Iterator[Cell]:
    study, arm = work.study, work.arm
    elsewhere = None
    recipes = [*detector_recipes(study.detectors if arm.group == "main" else ("sri",))]
    if other := work.role("elsewhere"):
        elsewhere = anchors_cell(arm, other, judges=study.judges, name=f"{arm.name}, elsewhere")
        yield elsewhere
    if arm.group == "main" and study.ablation and arm.model in study.ablation.models:
        most = sum(cell.units for cell in work.role("anchors")) // 2
        recipes += [
            recipe
            for recipe in ablation_recipes(study.ablation, most=most)
            if elsewhere or recipe.anchors != "elsewhere"
        ]
    for recipe in recipes:
        yield scores_cell(
            arm,
            recipe,
            work.traced,
            work.anchors,
            elsewhere,
            judges=study.judges,
            alpha=study.alpha,
            seed=study.seed,
            reader=work.reader,
        )


def _guarded(work: Work) -> Iterator[Cell]:
    """Guards, how soon they detect, and what stands behind or against them."""
    study, spec, arm = work.study, work.spec, work.arm
    benign = work.role("fit"), work.role("calibration")
    guards = guards_cell(arm, work.anchors, *benign, alpha=study.alpha, seed=study.seed)
    yield guards
    yield delay_cell(arm, work.anchors, *benign, work.role("test"), alpha=study.alpha)
    common: dict[str, Any] = {
        "judges": study.judges,
        "seed": study.seed,
        "batch_size": work.batch_size,
    }
    defended = work.defended(max(1, ceil(study.defended * spec.share)))
    infilling = [one for one in work.sets if one.role == "infilling"]
    for defense in study.defenses:
        if spec.name in (defense.models or (spec.name,)):
            held_out = work.prompts("calibration")
            yield defense_cell(
                arm, defense, defended, infilling, guards, held_out, reader=work.reader, **common
            )
    for pair in study.surrogates:
        if pair.black == spec.name:
            yield surrogate_cell(
                work.models[pair.white], arm.name, work.traced, alpha=study.alpha, **common
            )
    if study.adaptive:
        goals = one_a_goal(
            read_source(
                study.adaptive.source,
                work.folder,
                limit=_SPARE * study.adaptive.goals,
                planned=work.planned,
            )
        )[: study.adaptive.goals]
        for search in study.adaptive.searches:
            if spec.name in (search.models or study.adaptive.models):
                some = search.goals or len(goals)
                yield adaptive_cell(arm, search, goals[:some], guards, **common)


def _replays(arms: Sequence[tuple[Arm, list[Cell]]], judge: str) -> Iterator[Cell]:
    """Replays of the first main arm, of the first one of a diffusion model, and of its AR order."""
    mains = [pair for pair in arms if pair[0].group == "main"]
    second = next((p for p in mains if p[0].family != mains[0][0].family), None)
    if second is None:
        return
    variants = [p for p in arms if p[0].group == "variant" and p[0].model == second[0].model]
    ordered = [p for p in variants if is_ar_order(p[0].sampler)]
    shown = (mains[0], second, *ordered[:1])
    yield replay_cell([(arm, *_told(made)) for arm, made in shown], judge=judge)


def _told(made: Sequence[Cell]) -> tuple[Cell, list[tuple[Cell, Cell]]]:
    """The anchors of an arm's cells, and traces and verdicts of each of its test sets."""
    anchors = next(cell for cell in made if cell.kind == "anchors")
    verdicts = [cell for cell in made if cell.kind == "verdicts"]
    return anchors, [(cell.needs[0], cell) for cell in verdicts]
