"""The arms of a study: each model under each of its samplers, found but not loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from demur.errors import DemurError
from demur.models.checkpoint import find
from demur.plugins import plugins
from demur.sampling import known_samplers
from demur.study.plan.spec import Loading, ModelSpec, Study
from demur.types import Record

#: Positions of a response in a continuum, if the model's card does not say.
_LENGTH = 128
#: Seconds per step and generation of a built-in autoregressive model on one core.
_STEP = 0.00016
#: A diffusion step computes prompt and response, so it takes this many times as long.
_DENOISING = 18

ArmGroup = Literal["main", "variant", "continuum", "pooling"]


@dataclass(frozen=True)
class Located:
    """A model of a study.

    Attributes:
        location: argument of ``demur.load``, as are the ``options``.
        identity: hash of its files, or the hub's commit. Empty if it was not found; cells that load
            it then fail with the reason.
        family: its family, from its config.
        sampler: its default sampler, if its config names one.
    """

    name: str
    location: str
    identity: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    family: str = ""
    sampler: Mapping[str, Any] | None = None

    @property
    def length(self) -> int:
        """Positions of a response."""
        return int((self.sampler or {}).get("gen_length", _LENGTH))

    @property
    def inputs(self) -> Any:
        """What results depend on, for cell keys: the identity, which covers an adapter, and how it is
        asked."""
        asked = {k: self.options[k] for k in ("system", "template") if k in self.options}
        return [self.identity, asked] if asked else self.identity


@dataclass(frozen=True)
class Arm:
    """A model under a sampler: one row or column of a comparison.

    Attributes:
        model: name of its model in tables.
        location, identity, options, family: those of the model; see ``Located``.
        sampler: the model's default with the arm's changes, as far as the config tells.
        pooling: None: the model's default.
        layers: recorded layers.
        group: ``main`` is a model's first arm, ``variant`` another sampler, ``continuum`` and
            ``pooling`` belong to those analyses.
    """

    name: str
    model: str
    location: str
    identity: str
    sampler: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    pooling: str | None = None
    layers: tuple[str, ...] = ("last",)
    group: ArmGroup = "main"
    family: str = ""

    @property
    def pace(self) -> float:
        """Seconds per generation of a built-in model on one core."""
        slower = 1 if token_by_token(self.sampler) else _DENOISING
        return _STEP * int(self.sampler.get("steps", 32)) * slower

    def record(self, seed: int) -> Record:
        """What is recorded of each generation."""
        return Record(layers=self.layers, pooling=self.pooling, seed=seed)

    @property
    def inputs(self) -> dict[str, Any]:
        """What a generation depends on besides prompt and seed, for cell keys."""
        kept = ("identity", "sampler", "pooling", "layers")
        # The device changes no result, and an adapter is part of the identity.
        left_out = ("device", "device_map", "adapter")
        options = {k: v for k, v in self.options.items() if k not in left_out}
        return {name: getattr(self, name) for name in kept} | options


def token_by_token(sampler: Mapping[str, Any]) -> bool:
    """Whether a sampler, given as its settings, writes from left to right, one token per step.

    A sampler without a known name is taken to do so.
    """
    kind = known_samplers().get(str(sampler.get("name")))
    return kind is None or kind.releases == "token"


def is_ar_order(sampler: Mapping[str, Any]) -> bool:
    """Whether a diffusion sampler decodes from left to right, one token per step."""
    return bool(sampler.get("remasking") == "left_to_right" or sampler.get("block_length") == 1)


def locate_all(study: Study, folder: Path, *, here: bool = False) -> dict[str, Located]:
    """Every model of the study by name. ``here``: do not ask the hub."""
    return {
        spec.name: _locate(spec, folder, spec.loading or study.loading, here=here)
        for spec in study.models
    }


def arms_of(study: Study, models: Mapping[str, Located]) -> list[Arm]:
    """Every arm of the study, model by model, a model's main arm first."""
    return [arm for spec in study.models for arm in model_arms(study, spec, models[spec.name])]


def model_arms(study: Study, spec: ModelSpec, at: Located) -> Iterator[Arm]:
    """Arms of one model: its own, then those of the continuum and of the poolings."""
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


def _beside(folder: Path, name: str) -> str:
    """The path of a model, GGUF file or adapter next to the study file, else the name as it is."""
    path = folder / name
    if path.suffix == ".gguf" and path.is_file():
        return str(path)
    holds = ("config.json", "adapter_config.json", "*.gguf")
    return str(path) if any(next(path.glob(one), None) for one in holds) else name


def _locate(spec: ModelSpec, folder: Path, loading: Loading, *, here: bool) -> Located:
    own_options = spec.model_dump(include={"revision", "system", "template", "adapter"})
    options = loading.options | {k: v for k, v in own_options.items() if v is not None}
    if "adapter" in options:
        options["adapter"] = _beside(folder, options["adapter"])
    location = _beside(folder, spec.model)
    own = {plugin.name: plugin.identity for plugin in plugins("models")}
    if location in own:
        return Located(spec.name, location, identity=own[location], options=options)
    try:
        adapter = options.get("adapter")
        found = find(location, revision=spec.revision, adapter=adapter, here=here)
    except DemurError:
        return Located(spec.name, location, options=options)
    return Located(
        spec.name,
        location,
        identity=found.revision,
        options=options,
        family=str(found.card.get("family", found.config.get("model_type", ""))),
        sampler=found.card.get("sampler"),
    )
