"""Cells that put a defense in front of a model: what users read, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from demur.defenses import Defended, Defense, PerplexityFilter, Setup, defense_from
from demur.models.base import LanguageModel
from demur.study.engine.cells import UNKEYED, ArmCell, Subject
from demur.study.engine.workspace import Workspace
from demur.study.plan.arms import Located
from demur.study.plan.prompt_sets import StudySet
from demur.study.plan.spec import DefenseSpec, Judges
from demur.study.work.guards import GUARDS, GuardsCell
from demur.study.work.traces import AttackCell, attacked, sampler_of, target_of
from demur.study.work.verdicts import Hit, first_judge, harm_judge
from demur.types import Label, Prompt, Record, digest


@dataclass(frozen=True)
class Sample:
    """The first prompts of a test set.

    ``first`` are the prompts before any attack, ``attack`` the cell that attacks the set, if any.
    """

    first: tuple[Prompt, ...]
    attack: AttackCell | None = None

    def read(self, workspace: Workspace) -> Sequence[Prompt]:
        """The prompts as they are sent."""
        if self.attack is None:
            return self.first
        return workspace.result(self.attack).prompts[: len(self.first)]


@dataclass(frozen=True)
class Ending:
    """How one response is judged; None: no verdict. ``harmful`` is False for other prompts."""

    refused: Hit
    harmful: Hit


@dataclass(frozen=True)
class DefendedRow:
    """One prompt without and with the defense, which kept, blocked or changed it (``action``)."""

    goal: str
    attack: str
    label: Label
    action: str
    undefended: Ending
    defended: Ending


@dataclass(frozen=True)
class Cost:
    """Forward passes and seconds of a list of prompts."""

    passes: int
    seconds: float


@dataclass(frozen=True)
class DefenseResult:
    """What a defense did with a list of prompts, and what it cost in the same run."""

    rows: tuple[DefendedRow, ...]
    undefended: Cost
    defended: Cost


@dataclass(frozen=True, kw_only=True)
class DefenseCell(ArmCell[DefenseResult]):
    """Run a defense on some prompts of every test set, and on infilling attacks (table 14)."""

    kind, version = "defense", 2

    defense: DefenseSpec
    guards: GuardsCell | None
    samples: tuple[Sample, ...]
    infilling: tuple[StudySet, ...]
    calibration: tuple[Prompt, ...]
    judges: Judges
    seed: int
    reader: Located | None
    batch_size: int = field(metadata=UNKEYED)

    @property
    def subject(self) -> Subject:
        return Subject(arm=self.arm.name, defense=defense_name(self.defense))

    @property
    def units(self) -> int:
        infilling = sum(len(one.prompts) for one in self.infilling)
        return sum(len(one.first) for one in self.samples) + infilling

    @property
    def pace(self) -> float:
        return self.arm.pace

    def run(self, workspace: Workspace) -> DefenseResult:
        arm, model = self.arm, workspace.model(self.arm)
        defense = self._defense(workspace)
        target = target_of(arm, model)
        filled = [p for one in self.infilling for p in attacked(one, target, seed=self.seed)]
        prompts = [*(p for one in self.samples for p in one.read(workspace)), *filled]
        how: dict[str, Any] = {
            "sampler": sampler_of(arm, model),
            "record": Record(layers=arm.layers, seed=self.seed),
            "batch_size": self.batch_size,
        }
        # All defenses of an arm are compared with the same generation.
        undefended = workspace.keep(
            digest([arm.inputs, [p.as_data() for p in prompts]]),
            lambda: Setup(model=model, **how).answer(prompts),
        )
        found = defense(model, prompts, undefended=undefended, **how)
        return DefenseResult(
            rows=_rows(found, self.judges),
            undefended=Cost(found.undefended_passes, found.undefended_seconds),
            defended=Cost(found.passes, found.seconds),
        )

    def _defense(self, workspace: Workspace) -> Defense:
        settings = {"name": self.defense.name, **self.defense.settings}
        if self.guards is not None:
            file = workspace.at(self.guards) / f"{settings['guard']}.safetensors"
            return defense_from({**settings, "guard": str(file)})
        if self.defense.name == PerplexityFilter.name and "threshold" not in settings:
            assert self.reader is not None, "a perplexity filter without a threshold needs a reader"
            scorer: LanguageModel = workspace.model(self.reader)
            made = defense_from({**settings, "threshold": 0.0})
            assert isinstance(made, PerplexityFilter)
            return replace(made, scorer=scorer).calibrated(scorer, self.calibration)
        return defense_from(settings)


def uses_guard(defense: DefenseSpec) -> bool:
    """Whether a defense uses one of the study's guards."""
    return defense.settings.get("guard") in GUARDS


def defense_name(defense: DefenseSpec) -> str:
    """A defense's name for readers."""
    guard = defense.settings.get("guard")
    return f"{defense.name} ({guard})" if guard else defense.name


def _rows(found: Defended, judges: Judges) -> tuple[DefendedRow, ...]:
    sides = [[(o.prompt.goal, o.undefended), (o.prompt.goal, o.response)] for o in found.outcomes]
    refused = iter(first_judge(judges)([pair for both in sides for pair in both]))
    asked = [o.prompt.label == "harmful" for o in found.outcomes]
    judged = [pair for both, wanted in zip(sides, asked, strict=True) if wanted for pair in both]
    harmful = iter(harm_judge(judges)(judged))
    return tuple(
        DefendedRow(
            goal=one.prompt.goal,
            attack=one.prompt.attack,
            label=one.prompt.label,
            action=one.action,
            undefended=Ending(next(refused), wanted and next(harmful)),
            defended=Ending(next(refused), wanted and next(harmful)),
        )
        for one, wanted in zip(found.outcomes, asked, strict=True)
    )
