"""Every cell of a study, in an order in which each cell follows those it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from demur.study.engine.cells import Cell
from demur.study.plan.arms import Arm, Located, is_ar_order, model_arms
from demur.study.plan.prompt_sets import StudySet, one_a_goal, prompt_sets, read_source
from demur.study.plan.spec import DefenseSpec, ModelSpec, Study
from demur.study.work.defense import DefenseCell, Sample, uses_guard
from demur.study.work.guards import DelayCell, GuardsCell, SurrogateCell
from demur.study.work.scenes import ReplayCell
from demur.study.work.scores import ScoresCell, ablation_setups, detector_setups
from demur.study.work.suffix_attack import SuffixAttackCell
from demur.study.work.traces import AttackCell, PooledCell, RunCell, TraceCell
from demur.study.work.verdicts import AnchorsCell, VerdictsCell

#: Sets that another pooling needs: anchors, the paper's detector, and its test.
_POOLED = ("anchors", "fit", "calibration", "test")

#: Prompts to read per goal, since several prompts may share a goal.
_SPARE = 4


@dataclass(frozen=True)
class ArmCells:
    """The traces of one arm and what is judged in them.

    ``traced`` has a cell per set, except for infilling; ``verdicts`` a cell per test set.
    """

    spec: ModelSpec
    arm: Arm
    sets: Sequence[StudySet]
    traced: Sequence[RunCell]
    anchors: AnchorsCell
    verdicts: tuple[VerdictsCell, ...]

    def role(self, role: str) -> tuple[RunCell, ...]:
        """The traces of one role."""
        return tuple(cell for cell in self.traced if cell.chosen.role == role)


@dataclass(frozen=True)
class Graph:
    """What cells are made from.

    ``planned``: placeholders replace prompts of missing files.
    """

    study: Study
    folder: Path
    models: Mapping[str, Located]
    planned: bool

    def cells(self) -> Iterator[Cell[Any]]:
        arms: list[ArmCells] = []
        for spec in self.study.models:
            main: ArmCells | None = None
            for arm in model_arms(self.study, spec, self.models[spec.name]):
                made = self._pooled(spec, arm, main) if main and arm.pooling else None
                made = made or self._traced(spec, arm)
                main = main or made
                arms.append(made)
                for cell in made.traced:
                    yield from (need for need in cell.needs if need.kind == "attack")
                    yield cell
                yield made.anchors
                yield from made.verdicts
                if made.role("calibration"):
                    if arm.group in ("main", "pooling"):
                        yield from self._scores(made)
                    if arm.group == "main":
                        yield from self._guarded(made)
        yield from self._replay(arms)

    def _traced(self, spec: ModelSpec, arm: Arm) -> ArmCells:
        main = arm.group == "main"
        sets = prompt_sets(self.study, self.folder, spec, main=main, planned=self.planned)
        seed, size = self.study.seed, self._batch_size(spec)
        traced = []
        for chosen in sets:
            if chosen.role != "infilling":
                attack = AttackCell(arm=arm, chosen=chosen, seed=seed) if chosen.attack else None
                traced.append(
                    TraceCell(arm=arm, chosen=chosen, attack=attack, seed=seed, batch_size=size)
                )
        return self._judged(spec, arm, sets, traced)

    def _pooled(self, spec: ModelSpec, arm: Arm, main: ArmCells) -> ArmCells:
        """The main arm's traces with another pooling."""
        size = self._batch_size(spec)
        traced = [
            PooledCell(arm=arm, chosen=cell.chosen, traced=cell, batch_size=size)
            for cell in main.traced
            if isinstance(cell, TraceCell) and cell.chosen.role in _POOLED
        ]
        return self._judged(spec, arm, (), traced)

    def _judged(
        self, spec: ModelSpec, arm: Arm, sets: Sequence[StudySet], traced: Sequence[RunCell]
    ) -> ArmCells:
        judges = self.study.judges
        anchored = tuple(cell for cell in traced if cell.chosen.role == "anchors")
        few = self.study.allow_few
        anchors = AnchorsCell(arm=arm, traced=anchored, judges=judges, allow_few=few)
        verdicts = tuple(
            VerdictsCell(arm=arm, traced=cell, anchors=anchors, judges=judges)
            for cell in traced
            if cell.chosen.role == "test"
        )
        return ArmCells(spec, arm, sets, traced, anchors, verdicts)

    def _scores(self, of: ArmCells) -> Iterator[Cell[Any]]:
        study, arm, other = self.study, of.arm, of.role("elsewhere")
        elsewhere = AnchorsCell(
            arm=arm,
            traced=other,
            judges=study.judges,
            elsewhere=True,
            allow_few=study.allow_few,
        )
        if other:
            yield elsewhere
        setups = [*detector_setups(study.detectors if arm.group == "main" else ("sri",))]
        if arm.group == "main" and study.ablation and arm.model in study.ablation.models:
            most = sum(cell.units for cell in of.role("anchors")) // 2
            setups += ablation_setups(study.ablation, most=most)
        for setup in setups:
            method, far = setup.method, setup.anchors == "elsewhere"
            if far and not other:
                continue
            yield ScoresCell(
                arm=arm,
                setup=setup,
                elsewhere=elsewhere if far else None,
                anchors=of.anchors,
                fit=of.role("fit"),
                calibration=of.role("calibration"),
                harmful=of.role("harmful") if method.supervised else (),
                anchored=of.role("anchors") if isinstance(setup.anchors, int) else (),
                test=of.role("test"),
                judges=study.judges,
                alpha=study.alpha,
                seed=study.seed,
                reader=self.models.get(study.reader) if method.needs_model else None,
            )

    def _guarded(self, of: ArmCells) -> Iterator[Cell[Any]]:
        """Guards and their delays, defenses, surrogates and suffix attacks."""
        study, name = self.study, of.spec.name
        benign: dict[str, Any] = {
            "anchors": of.anchors,
            "fit": of.role("fit"),
            "calibration": of.role("calibration"),
            "alpha": study.alpha,
        }
        guards = GuardsCell(arm=of.arm, seed=study.seed, **benign)
        yield guards
        yield DelayCell(arm=of.arm, test=of.role("test"), **benign)
        for defense in study.defenses:
            if name in (defense.models or (name,)):
                yield self._defense(of, defense, guards)
        for pair in study.surrogates:
            if pair.black == name:
                yield SurrogateCell(
                    white=self.models[pair.white],
                    black=of.arm.name,
                    anchored=of.role("anchors"),
                    fit=of.role("fit"),
                    calibration=of.role("calibration"),
                    test=of.role("test"),
                    judges=study.judges,
                    alpha=study.alpha,
                    seed=study.seed,
                    allow_few=study.allow_few,
                    batch_size=self._batch_size(of.spec),
                )
        if plan := study.adaptive:
            limit = _SPARE * plan.goals
            read = read_source(plan.source, self.folder, limit=limit, planned=self.planned)
            goals = one_a_goal(read)[: plan.goals]
            for search in plan.searches:
                if name in (search.models or plan.models):
                    yield SuffixAttackCell(
                        arm=of.arm,
                        search=search,
                        prompts=tuple(goals[: search.goals]),
                        guards=guards,
                        judges=study.judges,
                        seed=study.seed,
                        batch_size=self._batch_size(of.spec),
                    )

    def _defense(self, of: ArmCells, defense: DefenseSpec, guards: GuardsCell) -> DefenseCell:
        most = max(1, ceil(self.study.defended * of.spec.share))
        held_out = (one for one in of.sets if one.role == "calibration")
        return DefenseCell(
            arm=of.arm,
            defense=defense,
            guards=guards if uses_guard(defense) else None,
            samples=tuple(
                Sample(cell.chosen.prompts[:most], cell.attack)
                for cell in of.role("test")
                if isinstance(cell, TraceCell)
            ),
            infilling=tuple(one for one in of.sets if one.role == "infilling"),
            calibration=tuple(prompt for one in held_out for prompt in one.prompts),
            judges=self.study.judges,
            seed=self.study.seed,
            reader=self.models.get(self.study.reader),
            batch_size=self._batch_size(of.spec),
        )

    def _replay(self, arms: Sequence[ArmCells]) -> Iterator[ReplayCell]:
        """The first main arm, the first one of a diffusion model, and the latter's AR order."""
        mains = [one for one in arms if one.arm.group == "main"]
        second = next((m for m in mains if m.arm.family != mains[0].arm.family), None)
        if second is None:
            return
        variants = (o for o in arms if o.arm.group == "variant" and o.spec is second.spec)
        ordered = [one for one in variants if is_ar_order(one.arm.sampler)]
        shown = (mains[0], second, *ordered[:1])
        yield ReplayCell(
            arms=tuple(one.arm for one in shown),
            anchors=tuple(one.anchors for one in shown),
            verdicts=tuple(one.verdicts for one in shown),
            judge=self.study.judges.refusal[0],
        )

    def _batch_size(self, spec: ModelSpec) -> int:
        return spec.batch_size or self.study.batch_size


def cells_of(
    study: Study, folder: Path, models: Mapping[str, Located], *, planned: bool = False
) -> list[Cell[Any]]:
    """Every cell of the study. ``planned``: placeholders replace prompts of missing files.

    Raises:
        InputError: a prompt file cannot be read, or two sets are the same.
    """
    return list(Graph(study, folder, models, planned).cells())
