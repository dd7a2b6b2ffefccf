"""The sections of a study file: models, samplers, prompts and analyses.

    demur study run STUDY.yaml --out DIR

Each class is one section. Unknown fields are errors that name the line.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from demur.errors import InputError
from demur.organism import NAMES
from demur.types import Label

#: What a prompt set is for. ``harmful`` trains supervised detectors, ``elsewhere`` gives anchors from
#: another distribution, ``infilling`` is used only by defenses (arXiv:2602.02600, table 14).
Role = Literal["anchors", "elsewhere", "fit", "calibration", "harmful", "test", "infilling"]

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]
#: A name with settings.
Named = Mapping[str, Any]


class StudySection(BaseModel):
    """A section of the file: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ArmSpec(StudySection):
    """A sampler of a model: changes to the model's default sampler."""

    name: str
    sampler: Mapping[str, Any] = Field(default_factory=dict)


class Loading(StudySection):
    """How models are loaded; see ``demur.load``.

    Attributes:
        dtype: ``float32``, ``bfloat16`` or ``float16``. None here and below: ``demur.load`` decides.
        device: for example ``cuda``.
        device_map: for example ``auto``. Excludes ``device``.
        bits: 8 or 4.
        attention: attention implementation of transformers.
        system: system prompt; empty for none.
        template: arguments of the chat template, such as ``enable_thinking``.
        adapter: a LoRA or other PEFT adapter: a folder, next to the study file if relative, or a hub
            id.
    """

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    device: str | None = None
    device_map: str | None = None
    bits: Literal[4, 8] | None = None
    attention: str | None = None
    system: str | None = None
    template: Named | None = None
    adapter: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that are set, for ``demur.load``."""
        return self.model_dump(exclude_none=True)


class ModelSpec(StudySection):
    """A model and its samplers.

    Attributes:
        name: name in tables.
        model: built-in name, folder, GGUF file or hub id. A relative path is next to the study file.
        share: share of each set's prompts to use, in (0, 1], for slow models.
        batch_size: prompts per batch. None: the study's.
        loading: how to load it. None: as the study says.
        system, template, adapter: as in ``loading``, for this model alone.
        arms: samplers. The first is the main one, which every analysis uses.
    """

    name: str
    model: str
    revision: str | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch_size: Count | None = None
    loading: Loading | None = None
    system: str | None = None
    template: Named | None = None
    adapter: str | None = None
    arms: Annotated[tuple[ArmSpec, ...], Field(min_length=1)] = (ArmSpec(name="default"),)

    @model_validator(mode="before")
    @classmethod
    def _sampler_in_an_arm(cls, value: Any) -> Any:
        """A sampler belongs to an arm: a model may have several."""
        if isinstance(value, Mapping) and "sampler" in value:
            raise ValueError(
                "a model has no sampler of its own but arms, each with a name and a sampler. Write: "
                f"arms: [{{name: main, sampler: {dict(value['sampler'] or {})}}}]"
                if isinstance(value["sampler"] or {}, Mapping)
                else "a model has no sampler of its own but arms: [{name: main, sampler: {...}}]"
            )
        return value


class PromptSetSpec(StudySection):
    """Prompts from one source.

    Attributes:
        source: as in ``demur.prompts.read_prompts``. ``{each}`` is replaced by each name in ``each``,
            giving one set per name.
        n: number of prompts, from the start.
        few: number of prompts for arms other than a model's first. None: no prompts.
        attacks: attacks of ``demur.attacks`` to apply, giving one set per attack.
        models: only for these models. Empty: for all.
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
        """A name alone is an attack without settings."""
        return [{"name": one} if isinstance(one, str) else one for one in value]


class DefenseSpec(StudySection):
    """A defense of ``demur.defenses``.

    Attributes:
        name: in ``DEFENSES``.
        settings: its settings. ``guard`` may be ``sri`` or ``sri-standardised``, fitted for each
            model. A perplexity filter without a threshold gets the largest score of benign prompts.
        models: only for these models. Empty: for all.
    """

    name: str
    settings: Mapping[str, Any] = Field(default_factory=dict)
    models: tuple[str, ...] = ()

    @property
    def inputs(self) -> dict[str, Any]:
        """What a defense depends on, for cell keys."""
        return self.model_dump(exclude={"models"})


class Judges(StudySection):
    """Names of ``demur.judges``, or ``oracle`` for the built-in world.

    Attributes:
        refusal: refusal judges. The first one gives the refusal rate (RR).
        harm: harm judge, for ASR, HRR and FRR. It judges drafts too. Empty: harm is not judged. None:
            ``oracle`` if every model of the study is a built-in one, else empty.
        model: model of judges that need one: a name on the server, or a model to load.
        endpoint: URL of an OpenAI-compatible server for judges that ask a model.
        key_variable: environment variable with the server's key.
        cache: folder for the server's answers, relative to the working directory.
        timeout: seconds per request.
        concurrency: concurrent requests.
        reasoning_tokens: extra tokens per answer, for models that reason first.
    """

    refusal: Annotated[tuple[str, ...], Field(min_length=1)] = ("paper",)
    harm: str | None = None
    model: str = ""
    endpoint: str = ""
    key_variable: str = "OPENAI_API_KEY"
    cache: str = ""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    concurrency: Count = 8
    reasoning_tokens: Annotated[int, Field(ge=0)] = 0

    @property
    def inputs(self) -> dict[str, Any]:
        """What verdicts depend on. How a server is reached does not count."""
        return self.model_dump(include={"refusal", "harm", "model", "endpoint"})

    @property
    def refusing(self) -> dict[str, Any]:
        """What verdicts of the first refusal judge depend on. Anchors use this judge."""
        return {**self.inputs, "refusal": self.refusal[0], "harm": ""}


class Ablation(StudySection):
    """Settings to vary around the paper's, one at a time.

    Attributes:
        tau: temperatures of the signal.
        steps: numbers of first steps that the detector reads.
        anchors: numbers of anchor prompts per class.
        poolings: model -> poolings to try besides its default. Each one is a separate run.
    """

    models: tuple[str, ...]
    tau: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    steps: tuple[Count, ...] = (4, 8, 16, 32)
    anchors: tuple[Count, ...] = (25, 50, 100, 200, 400)
    poolings: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class Continuum(StudySection):
    """The same weights from AR order to fully parallel remasking.

    Attributes:
        blocks: block lengths, at one commit per step. 1 is AR order.
        commits: commits per step, in one block. The response length is fully parallel.
    """

    models: tuple[str, ...]
    blocks: tuple[Count, ...]
    commits: tuple[Count, ...]


class SearchSpec(StudySection):
    """A suffix search. ``adaptive`` attacks the guard too; ``random_search`` is only judged by it.

    Attributes:
        name: the attack.
        guard: the guard it is judged by.
        settings: settings of the attack.
        models: only these models. Empty: all models of the section.
        goals: number of goals. None: all.
    """

    name: Literal["adaptive", "random_search"]
    guard: Literal["sri", "sri-standardised"] = "sri"
    models: tuple[str, ...] = ()
    goals: Count | None = None
    settings: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Any]:
        """What a search depends on, for cell keys."""
        return self.model_dump(exclude={"models", "goals"})


class AdaptiveSpec(StudySection):
    """Suffix searches, one per goal.

    Attributes:
        goals: number of goals, from the start of the source.
        source: prompts that name the goals.
    """

    models: tuple[str, ...]
    searches: tuple[SearchSpec, ...]
    goals: Count = 8
    source: str


class SurrogateSpec(StudySection):
    """A white-box model whose states guard a black-box model (arXiv:2602.02600, table 24)."""

    white: str
    black: str


class QuickSpec(StudySection):
    """What ``--quick`` runs.

    Attributes:
        without: sections to skip.
        share: share of the prompts, in (0, 1].
        alpha: false-positive rate of thresholds.
    """

    models: tuple[str, ...]
    without: tuple[Literal["ablation", "continuum", "adaptive"], ...] = ()
    share: Annotated[float, Field(gt=0, le=1)]
    alpha: Rate


class Study(StudySection):
    """The whole file.

    Attributes:
        title, note: title of the report, and a caution for its reader.
        alpha: false-positive rate of thresholds, calibrated on held-out benign prompts.
        layers: recorded layers.
        batch_size: prompts per batch.
        workers: maximum number of processes. Each loads its own models.
        reader: the model among ``models``, autoregressive, that computes perplexity.
        sets: prompts by role.
        detectors: names of ``demur.detectors.DETECTORS``.
        defenses: defenses to run on every model's main arm.
        defended: prompts per test set for defenses, before a model's share.
        allow_few: accept anchors of fewer than 20 traces of a class; the report says so.
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
    sets: Mapping[Role, tuple[PromptSetSpec, ...]]
    detectors: tuple[str, ...] = ()
    defenses: tuple[DefenseSpec, ...] = ()
    defended: Count = 20
    allow_few: bool = False
    ablation: Ablation | None = None
    continuum: Continuum | None = None
    adaptive: AdaptiveSpec | None = None
    surrogates: tuple[SurrogateSpec, ...] = ()
    quick: QuickSpec | None = None

    @model_validator(mode="after")
    def _harm_judge(self) -> Study:
        """The oracle knows the built-in world alone, so it is the default there alone."""
        if self.judges.harm is None:
            known = all(model.model in NAMES for model in self.models)
            judges = self.judges.model_copy(update={"harm": "oracle" if known else ""})
            object.__setattr__(self, "judges", judges)
        return self

    def quickened(self) -> Study:
        """The study reduced to its ``quick`` section.

        Raises:
            InputError: there is no such section.
        """
        if self.quick is None:
            raise InputError("This study has no 'quick' section. Run it without --quick.")
        quick, kept = self.quick, {*self.quick.models}

        def fewer(count: int | None) -> int | None:
            return None if count is None else max(1, ceil(count * quick.share))

        change: dict[str, Any] = {
            "models": tuple(
                m.model_copy(update={"share": m.share * quick.share})
                for m in self.models
                if m.name in kept
            ),
            "sets": {
                role: tuple(s.model_copy(update={"few": fewer(s.few)}) for s in sets)
                for role, sets in self.sets.items()
                # Anchors from elsewhere are an ablation.
                if role != "elsewhere" or "ablation" not in quick.without
            },
            "alpha": quick.alpha,
            "surrogates": tuple(s for s in self.surrogates if {s.white, s.black} <= kept),
            "reader": self.reader if self.reader in kept else "",
            "defended": fewer(self.defended),
        }
        for name in ("ablation", "continuum", "adaptive"):
            if part := getattr(self, name):
                update: dict[str, Any] = {"models": tuple(m for m in part.models if m in kept)}
                if isinstance(part, AdaptiveSpec):
                    update["goals"] = fewer(part.goals)
                    update["searches"] = tuple(s for s in part.searches if {*s.models} <= kept)
                change[name] = None if name in quick.without else part.model_copy(update=update)
        return self.model_copy(update=change)
