"""Cells that make traces: the attack on a set's prompts where it has one, then every generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from demur import cluster
from demur.models.base import LanguageModel
from demur.runs import trace_to
from demur.sampling import Sampler, sampler_with, spec
from demur.study.cells import Cell, Desk
from demur.study.sets import Set
from demur.types import Prompt, Record

#: What a change of this room's code that changes results is counted by.
VERSION = 1
#: The same for attacks, whose prompts everything made without them does not depend on.
ATTACKED = 2

#: Seconds that a step of a built-in autoregressive model takes one core, and how many times that a
#: diffusion model's does, which goes over prompt and response each time.
_STEP, _DENOISING = 0.00016, 18
#: Generations that an attack costs, about: a search scores some hundred first steps.
_ATTACKS = 4


@dataclass(frozen=True)
class Arm:
    """A model under a sampler: one column of a comparison.

    Attributes:
        name: what tables call it.
        model: what tables call its model.
        location: for ``demur.load``.
        options: for ``demur.load``: a hub revision to pin, a dtype and so on.
        identity: hash of the model's config and weights.
        sampler: the model's default, as far as its config tells, with the arm's changes.
        pooling: the model's default when None.
        layers: recorded layers.
        group: what the arm is for.
        family: kind of its model, as far as its config says.
    """

    name: str
    model: str
    location: str
    identity: str
    sampler: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    layers: tuple[str, ...] = ("last",)
    group: Literal["main", "variant", "continuum", "pooling"] = "main"
    family: str = ""

    @property
    def pace(self) -> float:
        """Seconds a generation of a built-in model takes one core."""
        return _STEP * int(self.sampler.get("steps", 32)) * (1 if self.causal else _DENOISING)

    @property
    def causal(self) -> bool:
        """Whether it writes from left to right with a causal model, as far as its config tells."""
        return bool(self.sampler.get("name", "autoregressive") == "autoregressive")

    @property
    def inputs(self) -> dict[str, Any]:
        """What a generation depends on, the prompt and the seed left out."""
        kept = ("identity", "sampler", "pooling", "layers")
        # Where a model is computed changes no result.
        options = {k: v for k, v in self.options.items() if k not in ("device", "device_map")}
        return {name: getattr(self, name) for name in kept} | options | {"version": VERSION}


def trace_cell(arm: Arm, chosen: Set, *, seed: int, batch_size: int) -> list[Cell]:
    """The cells that trace one set under one arm; the last one holds the run folder ``run``."""
    needs: tuple[Cell, ...] = ()
    if chosen.attack is not None:
        needs = (_attack_cell(arm, chosen, seed=seed),)

    def work(desk: Desk) -> Mapping[str, Any]:
        prompts = (
            [prompt_from(row) for row in desk.value(needs[0])["prompts"]]
            if needs
            else chosen.prompts
        )
        run: dict[str, Any] = {
            "record": Record(pooling=arm.pooling, layers=arm.layers, seed=seed),
            "batch_size": batch_size,
            "progress": desk.advance,
        }
        place = desk.path / "run"
        if desk.pool is not None:
            run |= {"options": dict(arm.options), "sampler": arm.sampler, **desk.pool}
            store = cluster.trace_to(place, arm.location, prompts, **run)
        else:
            model = desk.model(arm.location, arm.options)
            store = trace_to(place, model, prompts, sampler=sampler_of(arm, model), **run)
        mark = store.manifest.fingerprint
        return {"traces": len(store), "fingerprint": asdict(mark)}

    cell = Cell(
        kind="traces",
        name=f"{arm.name}, {chosen.name}",
        inputs=arm.inputs | {"seed": seed, "prompts": chosen.digest},
        work=work,
        needs=needs,
        units=len(chosen.prompts),
        pace=arm.pace,
        arm=arm.name,
        about={"arm": arm.name, "set": chosen.name, "role": chosen.role},
    )
    return [*needs, cell]


def is_ar_order(sampler: Mapping[str, Any]) -> bool:
    """Whether a sampler decodes diffusion weights from left to right, a token a step."""
    return bool(sampler.get("remasking") == "left_to_right" or sampler.get("block_length") == 1)


def sampler_of(arm: Arm, model: LanguageModel) -> Sampler:
    """The model's default sampler with the arm's changes, or another sampler as the arm names it."""
    return sampler_with(model.traits.sampler, arm.sampler)


def target_of(arm: Arm, model: LanguageModel) -> LanguageModel:
    """The model as attacks see it: what the arm changes of its sampler is its own."""
    traits = replace(model.traits, sampler=spec(sampler_of(arm, model)))
    return replace(model, traits=traits)


def _attack_cell(arm: Arm, chosen: Set, *, seed: int) -> Cell:
    """Attacked prompts of a set; the target is the arm's model under its sampler."""
    attack = chosen.attack
    assert attack is not None

    def work(desk: Desk) -> Mapping[str, Any]:
        from demur.attacks import attack_from

        target = target_of(arm, desk.model(arm.location, arm.options))
        attacked = attack_from(attack)(chosen.prompts, target=target, seed=seed)
        return {"prompts": [asdict(prompt) for prompt in attacked]}

    return Cell(
        kind="attack",
        name=f"{attack['name']} on {arm.model}",
        inputs={
            "identity": arm.identity,
            "sampler": arm.sampler,
            "seed": seed,
            "prompts": chosen.digest,
            "version": ATTACKED,
        },
        work=work,
        units=len(chosen.prompts),
        pace=_ATTACKS * arm.pace,
        arm=arm.name,
    )


def prompt_from(row: Mapping[str, Any]) -> Prompt:
    """A prompt from plain data, its templates tuples again."""
    templates = {k: tuple(row[k]) for k in ("user", "response") if row[k] is not None}
    return Prompt(**{**row, **templates})
