"""What a study compares: models, samplers, prompts and analyses, read from YAML and checked.

    demur study run STUDY.yaml --out DIR

The classes below are the file's sections; every field that is not known is refused by its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from demur.errors import InputError
from demur.types import Label

#: What a prompt set is for. ``harmful`` trains supervised detectors, ``elsewhere`` makes anchors of
#: another distribution, ``infilling`` prompts are for defenses alone (PAPER table 14).
Role = Literal["anchors", "elsewhere", "fit", "calibration", "harmful", "test", "infilling"]

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
#: A name alone, or a name with settings.
Named = Mapping[str, Any]


class Part(BaseModel):
    """A section of the file: frozen, with no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ArmSpec(Part):
    """A sampler of a model: changes to the model's own default."""

    name: str
    sampler: Mapping[str, Any] = Field(default_factory=dict)


class Loading(Part):
    """How models are loaded; see ``demur.load``.

    Attributes:
        dtype: ``float32``, ``bfloat16`` or ``float16``; ``demur.load``'s choice when None, as below.
        device: such as ``cuda``.
        device_map: such as ``auto``; excludes ``device``.
        bits: 8 or 4.
        attention: transformers' implementation.
    """

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    device: str | None = None
    device_map: str | None = None
    bits: Literal[4, 8] | None = None
    attention: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What is set, for ``demur.load``."""
        return self.model_dump(exclude_none=True)


class ModelSpec(Part):
    """A model and the samplers it is run under.

    Attributes:
        name: what tables call it.
        model: built-in name, folder or hub id; a folder is looked for beside the file.
        share: share of each set's prompts it gets, for models that are slow.
        batch_size: prompts generated together; the study's when None.
        loading: how it is loaded; as the study says when None.
        arms: the first is the model's main one, which every analysis uses.
    """

    name: str
    model: str
    revision: str | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch_size: Count | None = None
    loading: Loading | None = None
    arms: Annotated[tuple[ArmSpec, ...], Field(min_length=1)] = (ArmSpec(name="default"),)


class PromptSet(Part):
    """Prompts of one source.

    Attributes:
        source: as ``demur.prompts.read_prompts`` takes it; ``{each}`` stands for the names in
            ``each``, a set for every one.
        n: prompts, from the beginning.
        few: prompts for arms beyond a model's first; none when left out.
        attacks: attacks of ``demur.attacks`` to put the prompts through, a set for every one.
        models: only for these; for all when empty.
    """

    source: str
    n: Count
    few: Count | None = None
    each: tuple[str, ...] = ()
    label: Label = "unknown"
    attacks: tuple[Named, ...] = ()
    models: tuple[str, ...] = ()

    @field_validator("attacks", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        """A bare name stands for an attack without settings."""
        return [{"name": one} if isinstance(one, str) else one for one in value]


class DefenseSpec(Part):
    """A defense of ``demur.defenses``.

    Attributes:
        name: in ``DEFENSES``.
        settings: its own; ``guard`` may be ``sri`` or ``sri-standardised``, fitted for each model, and
            a perplexity filter without a threshold gets the largest score of benign prompts.
        models: only for these; for all when empty.
    """

    name: str
    settings: Mapping[str, Any] = Field(default_factory=dict)
    models: tuple[str, ...] = ()


class Judges(Part):
    """Names of ``demur.judges``, or ``oracle`` for the built-in world.

    Attributes:
        refusal: the first one's verdicts make RR.
        harm: makes ASR, HRR and FRR; judges drafts too.
        model: for judges that ask one or are one: the server's, or one to load.
        endpoint: URL of an OpenAI-compatible server for judges that ask one.
        key_variable: environment variable that holds the server's key.
        cache: folder that keeps the server's answers, from where the study is run.
        timeout: seconds one try of the server may take.
        concurrency: requests under way at once.
        reasoning_tokens: tokens beyond an answer's own, for a model that reasons first.
    """

    refusal: Annotated[tuple[str, ...], Field(min_length=1)] = ("paper",)
    harm: str = "oracle"
    model: str = ""
    endpoint: str = ""
    key_variable: str = "OPENAI_API_KEY"
    cache: str = ""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    concurrency: Count = 8
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0

    @property
    def inputs(self) -> dict[str, Any]:
        """What verdicts depend on; how a server is reached is no part of it."""
        return self.model_dump(include={"refusal", "harm", "model", "endpoint"})

    @property
    def refusing(self) -> dict[str, Any]:
        """The same of the first refusal judge alone, whose verdicts anchors are made by."""
        return {**self.inputs, "refusal": self.refusal[0], "harm": ""}


class Ablation(Part):
    """What is varied, one at a time, around the paper's setting, on some models.

    Attributes:
        models: names.
        tau: of the signal.
        steps: first steps that the detector reads.
        anchors: prompts a class that anchors are over.
        poolings: model -> poolings beside its own; each is a run of its own.
    """

    models: tuple[str, ...]
    tau: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    steps: tuple[Count, ...] = (4, 8, 16, 32)
    anchors: tuple[Count, ...] = (25, 50, 100, 200, 400)
    poolings: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class Continuum(Part):
    """The same weights from AR order to full-parallel remasking, on some models.

    Attributes:
        blocks: block lengths with one commit a step; 1 is AR order.
        commits: commits a step in one block; the response's length is full-parallel.
    """

    models: tuple[str, ...]
    blocks: tuple[Count, ...]
    commits: tuple[Count, ...]


class Search(Part):
    """A suffix search: ``adaptive`` knows the guard, ``random_search`` does not but is judged by it.

    Attributes:
        name: which.
        guard: what it is against.
        settings: of the attack.
        models: only against these; against all that are searched when empty.
        goals: only so many; all when left out.
    """

    name: Literal["adaptive", "random_search"]
    guard: Literal["sri", "sri-standardised"] = "sri"
    models: tuple[str, ...] = ()
    goals: Count | None = None
    settings: Mapping[str, Any] = Field(default_factory=dict)


class Adaptive(Part):
    """Searches against some models, one for each of the first goals of a prompt set."""

    models: tuple[str, ...]
    searches: tuple[Search, ...]
    goals: Count = 8
    source: str


class Surrogate(Part):
    """A white-box model whose states guard another model's responses (PAPER table 24)."""

    white: str
    black: str


class Quick(Part):
    """What a quick run leaves: these models, this share of the prompts, this alpha; it goes without
    some parts."""

    models: tuple[str, ...]
    without: tuple[Literal["ablation", "continuum", "adaptive"], ...] = ()
    share: Annotated[float, Field(gt=0, le=1)]
    alpha: Rate


class Study(Part):
    """The whole file.

    Attributes:
        title: of the report.
        note: what the reader must not conclude.
        seed: of everything random.
        alpha: false-positive rate of every threshold, kept on held-out benign prompts.
        layers: recorded layers.
        batch_size: prompts generated together.
        workers: most cells done at once; each loads its own models.
        loading: how models are loaded.
        reader: the autoregressive model among ``models`` that reads prompts for perplexity.
        detectors: names of ``demur.detectors.DETECTORS``.
        defenses: put before every model's main arm.
        defended: prompts a test set, before a model's share, that defenses run on.
    """

    title: str
    note: str = ""
    seed: int = 0
    alpha: Rate = 0.01
    layers: tuple[str, ...] = ("last", "first", "middle")
    batch_size: Count = 8
    workers: Count = 1
    loading: Loading = Loading()
    judges: Judges = Judges()
    reader: str = ""
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=1)]
    sets: Mapping[Role, tuple[PromptSet, ...]]
    detectors: tuple[str, ...] = ()
    defenses: tuple[DefenseSpec, ...] = ()
    defended: Count = 20
    ablation: Ablation | None = None
    continuum: Continuum | None = None
    adaptive: Adaptive | None = None
    surrogates: tuple[Surrogate, ...] = ()
    quick: Quick | None = None

    def quickened(self) -> Study:
        """The study on the models and the share of prompts that ``quick`` names.

        Raises:
            InputError: it has no ``quick``.
        """
        if self.quick is None:
            raise InputError("This study has no 'quick' section. Run it without --quick.")
        quick, kept = self.quick, self.quick.models
        models = tuple(m for m in self.models if m.name in kept)
        shared = {"share": quick.share}
        change: dict[str, Any] = {
            "models": tuple(m.model_copy(update={"share": m.share * quick.share}) for m in models),
            "alpha": quick.alpha,
            "surrogates": tuple(s for s in self.surrogates if {s.white, s.black} <= {*kept}),
            "reader": self.reader if self.reader in kept else "",
            "defended": max(1, ceil(self.defended * quick.share)),
        }
        for name in ("ablation", "continuum", "adaptive"):
            part = getattr(self, name)
            if part is not None:
                there = tuple(m for m in part.models if m in kept)
                change[name] = part.model_copy(update={"models": there})
        if self.adaptive is not None:
            goals = max(1, ceil(self.adaptive.goals * quick.share))
            searches = tuple(s for s in self.adaptive.searches if {*s.models} <= {*kept})
            change["adaptive"] = change["adaptive"].model_copy(
                update={"goals": goals, "searches": searches}
            )
        sets = {role: tuple(_fewer(one, **shared) for one in ss) for role, ss in self.sets.items()}
        if "ablation" in quick.without:
            sets.pop("elsewhere", None)  # anchors from elsewhere are an ablation
        left_out: dict[str, Any] = dict.fromkeys(quick.without)
        return self.model_copy(update=change | {"sets": sets} | left_out)


def _fewer(one: PromptSet, *, share: float) -> PromptSet:
    few = None if one.few is None else max(1, ceil(one.few * share))
    return one.model_copy(update={"few": few})
