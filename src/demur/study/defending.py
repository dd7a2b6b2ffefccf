"""Cells that put a defense before a model and say what its users read, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from demur.attacks import attack_from
from demur.defenses import Defended, Defense, PerplexityFilter, defense_from
from demur.defenses.generation import generate
from demur.models.base import LanguageModel
from demur.study.cells import Cell, Desk
from demur.study.judging import Hits, harm_judge, refusal_judges
from demur.study.locating import Located
from demur.study.sets import Set
from demur.study.spec import DefenseSpec, Judges
from demur.study.tracing import Arm, prompt_from, sampler_of, target_of
from demur.study.watching import GUARDS
from demur.types import Prompt, digest

VERSION = 4


@dataclass(frozen=True)
class Asked:
    """The first prompts of a test set.

    Attributes:
        prompts: all of the set's, before any attack.
        most: how many.
        attack: the cell that attacks them, if any.
    """

    prompts: Sequence[Prompt]
    most: int
    attack: Cell | None = None

    @property
    def first(self) -> Sequence[Prompt]:
        """Before any attack."""
        return self.prompts[: self.most]

    def read(self, desk: Desk) -> list[Prompt]:
        """As they are sent."""
        if self.attack is None:
            return [*self.first]
        return [prompt_from(row) for row in desk.value(self.attack)["prompts"][: self.most]]


def defense_cell(
    arm: Arm,
    spec: DefenseSpec,
    asked: Sequence[Asked],
    infilling: Sequence[Set],
    guards: Cell,
    calibration: Sequence[Prompt],
    *,
    judges: Judges,
    seed: int,
    batch_size: int,
    reader: Located | None,
) -> Cell:
    """What a defense does with some prompts of every test set.

    Args:
        arm: the model and sampler it defends.
        spec: the defense.
        asked: test prompts, attacked and harmless ones.
        infilling: sets whose attack needs the model (PAPER table 14).
        guards: the arm's guards.
        calibration: benign prompts.
        judges: whose verdicts count.
        seed: of everything random.
        batch_size: prompts generated together.
        reader: the model that reads prompts, if there is one.
    """

    def work(desk: Desk) -> Mapping[str, Any]:
        model = desk.model(arm.location, arm.options)
        scorer = desk.of(reader) if reader else None
        target = target_of(arm, model)
        defense = _defense(spec, desk, guards, scorer, calibration)
        attacked = [prompt for one in infilling for prompt in _attacked(one, target, seed)]
        prompts = [*(p for one in asked for p in one.read(desk)), *attacked]
        how: dict[str, Any] = {
            "sampler": sampler_of(arm, model),
            "seed": seed,
            "batch_size": batch_size,
        }
        # All defenses of an arm are compared with one generation.
        undefended = desk.keep(
            digest([arm.inputs, [p.as_data() for p in prompts]]),
            lambda: generate(model, prompts, layers=arm.layers, **how),
        )
        found = defense(model, prompts, undefended=undefended, **how)
        return {
            "rows": _rows(found, refusal_judges(judges)[judges.refusal[0]], harm_judge(judges)),
            "passes": [found.undefended_passes, found.passes],
            "seconds": [found.undefended_seconds, found.seconds],
        }

    return Cell(
        kind="defense",
        name=f"{arm.name}, {shown(spec)}",
        inputs={
            "arm": arm.inputs,
            "spec": [spec.name, spec.settings],
            "judges": judges.inputs,
            "seed": seed,
            "prompts": digest([p.as_data() for one in asked for p in one.first]),
            "infilling": [one.digest for one in infilling],
            "calibration": digest([p.text for p in calibration]),
            "reader": reader.identity if reader else "",
            "version": VERSION,
        },
        work=work,
        needs=(
            *((guards,) if spec.settings.get("guard") in GUARDS else ()),
            *(one.attack for one in asked if one.attack),
        ),
        units=sum(len(one.first) for one in asked) + sum(len(one.prompts) for one in infilling),
        pace=arm.pace,
        arm=arm.name,
        about={"arm": arm.name, "defense": shown(spec)},
    )


def shown(spec: DefenseSpec) -> str:
    """A defense's name for readers."""
    guard = spec.settings.get("guard")
    return f"{spec.name} ({guard})" if guard else spec.name


def _rows(found: Defended, refusal: Hits, harm: Hits) -> list[dict[str, Any]]:
    """A row a prompt; ``refused`` and ``harmful`` are of the undefended and the defended response."""
    sides = [[(o.prompt.goal, o.undefended), (o.prompt.goal, o.response)] for o in found.outcomes]
    refused = iter(refusal([pair for both in sides for pair in both]))
    asked = [o.prompt.label == "harmful" for o in found.outcomes]
    harmful = iter(
        harm([pair for both, wanted in zip(sides, asked, strict=True) if wanted for pair in both])
    )
    return [
        {
            "goal": one.prompt.goal,
            "attack": one.prompt.attack,
            "label": one.prompt.label,
            "action": one.action,
            "refused": [next(refused), next(refused)],
            "harmful": [next(harmful), next(harmful)] if wanted else [False, False],
        }
        for one, wanted in zip(found.outcomes, asked, strict=True)
    ]


def _attacked(one: Set, target: LanguageModel, seed: int) -> list[Prompt]:
    assert one.attack is not None, "an infilling set has an attack"
    return attack_from(one.attack)(one.prompts, target=target, seed=seed)


def _defense(
    spec: DefenseSpec,
    desk: Desk,
    guards: Cell,
    scorer: LanguageModel | None,
    calibration: Sequence[Prompt],
) -> Defense:
    settings = {"name": spec.name, **spec.settings}
    if settings.get("guard") in GUARDS:
        file = desk.at(guards) / f"{settings['guard']}.safetensors"
        return defense_from({**settings, "guard": str(file)})
    if spec.name == PerplexityFilter.name and "threshold" not in settings:
        made = defense_from({**settings, "threshold": 0.0})
        assert isinstance(made, PerplexityFilter)
        assert scorer is not None, "the graph makes no perplexity cell without a reader"
        return replace(made, scorer=scorer).calibrated(scorer, calibration)
    return defense_from(settings)
