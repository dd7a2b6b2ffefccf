"""Models with their guards, checked to fit each other before anything is served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demur.errors import FingerprintError, InputError
from demur.generation import default_sampler, fingerprint
from demur.guard import StreamingGuard
from demur.guard.shipped import shipped
from demur.models.base import LanguageModel
from demur.sampling import Sampler, sampler_from
from demur.serve.hosted import HOW, HostedModel, ServeOptions
from demur.serve.http_errors import HTTPError
from demur.serve.model_engine import ModelEngine
from demur.serve.monitoring import Metrics
from demur.sri import Anchors
from demur.types import Record


@dataclass(frozen=True)
class Hosting:
    """All models of a server. Made by ``host``.

    Attributes:
        engines: one per model, by the model's name.
        options: the same for all models.
        metrics: of the server.
    """

    engines: Mapping[str, ModelEngine]
    options: ServeOptions
    metrics: Metrics

    def engine(self, model: str) -> ModelEngine:
        """The engine of a model.

        Raises:
            HTTPError: it is not served (404).
        """
        if model not in self.engines:
            raise HTTPError(404, "model_not_found", "This model is not served.", "model")
        return self.engines[model]


def host(
    models: Sequence[LanguageModel],
    guards: Sequence[StreamingGuard] = (),
    options: ServeOptions | None = None,
    anchors: Sequence[Anchors] = (),
) -> Hosting:
    """Make an engine per model, and check that models and guards fit each other.

    Args:
        models: from ``demur.load``.
        guards: each for one of the models; a model without one is served without a guard.
        options: the defaults when None.
        anchors: for the signal of the live page, each for one of the models. A built-in model has its
            own. Without anchors and guard the page shows the text only.

    Raises:
        InputError: a model given twice, or two guards or two anchors for one.
        FingerprintError: a guard that fits none of the models; says how to fit one.
    """
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise InputError(f"A model is named twice: {', '.join(names)}. Name each once.")
    owners = [guard.fingerprint.model for guard in guards]
    if stray := sorted(set(owners) - set(names)):
        raise FingerprintError(
            f"The guard was fitted on {', '.join(stray)}, which is not served ({', '.join(names)} "
            f"is). Fit one for it: {HOW}"
        )
    if len(set(owners)) < len(owners):
        raise InputError(f"There are two guards for one of {', '.join(owners)}. Give one each.")
    own = dict(zip(owners, guards, strict=True))
    marks = _of_models(anchors, names)
    options, metrics, engines = options or ServeOptions(), Metrics(), dict[str, ModelEngine]()
    for model in models:
        guard = own.get(model.name)
        sampler, record = _generation(model, guard)
        reference = marks.get(model.name)
        if reference is None and guard is None:
            found = shipped(fingerprint(model, sampler, record))
            reference = found[0] if found else None
        elif reference is not None:
            sampler, record = _with_anchors(model, guard, sampler, record, reference)
        engines[model.name] = ModelEngine(
            HostedModel(model, sampler, record, guard, options, metrics, reference)
        )
    return Hosting(engines, options, metrics)


def _of_models(anchors: Sequence[Anchors], names: Sequence[str]) -> dict[str, Anchors]:
    """Anchors by the name of their model."""
    found: dict[str, Anchors] = {}
    for each in anchors:
        name = each.fingerprint.model if each.fingerprint else "no named model"
        if name not in names:
            raise FingerprintError(
                f"These anchors were fitted on {name}, which is not served ({', '.join(names)} is). "
                "Fit anchors for it: demur anchors."
            )
        if name in found:
            raise InputError(f"There are two anchors files for {name}. Give one.")
        if each.alignment == "resample":
            raise InputError(
                f"The anchors of {name} are aligned by 'resample' and cannot read a stream. Fit them "
                "again: demur anchors."
            )
        found[name] = each
    return found


def _with_anchors(
    model: LanguageModel,
    guard: StreamingGuard | None,
    sampler: Sampler,
    record: Record,
    anchors: Anchors,
) -> tuple[Sampler, Record]:
    """Sampler and record that these anchors were made with, too.

    Raises:
        FingerprintError: they were made with others.
    """
    assert anchors.fingerprint is not None
    if guard is None:
        sampler = sampler_from(anchors.fingerprint.sampler)
        record = Record(layers=(anchors.layer,), pooling=anchors.fingerprint.pooling)
    anchors.fingerprint.require(
        fingerprint(model, sampler, record),
        what="These anchors were not made as the model is served",
        fix="Fit anchors for it: demur anchors.",
    )
    return sampler, replace(record, layers=tuple(dict.fromkeys((*record.layers, anchors.layer))))


def read_guard(path: Path) -> StreamingGuard:
    """Read a streaming guard.

    Raises:
        InputError: no such file, or not a streaming guard; says how to fit one.
    """
    try:
        return StreamingGuard.load(path)
    except InputError as error:
        raise InputError(f"{error} The server needs a streaming guard. Fit one: {HOW}") from error


def _generation(model: LanguageModel, guard: StreamingGuard | None) -> tuple[Sampler, Record]:
    """Sampler and record: the model's own, or those that its guard was fitted on.

    Raises:
        FingerprintError: the guard cannot follow this model's answers as they are generated.
    """
    if guard is None:
        return default_sampler(model), Record(pooling=model.traits.pooling)
    sampler, pooling = sampler_from(guard.fingerprint.sampler), guard.fingerprint.pooling
    record = Record(layers=guard.layers, pooling=pooling)
    guard.require(fingerprint(model, sampler, record))
    if sampler.releases == "token" and pooling != "running":
        raise FingerprintError(
            f"The guard reads {pooling!r} states, which are known only after a token was released. "
            f"Trace with --pooling running and fit again: {HOW}"
        )
    if sampler.releases != "token" and guard.steps < sampler.steps:
        raise FingerprintError(
            f"The guard reads the first {guard.steps} of {sampler.steps} steps; the others would "
            f"be released unjudged. Fit anchors for all of them and the guard again: {HOW}"
        )
    return sampler, record
