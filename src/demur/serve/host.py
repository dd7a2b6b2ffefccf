"""Models with their guards, checked to belong together before anything is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import FingerprintError, InputError
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, sampler_from
from demur.serve.answer import Mode
from demur.serve.engine import Engine
from demur.serve.limits import Limits
from demur.serve.metrics import Metrics
from demur.tracing import fingerprint

if TYPE_CHECKING:
    from demur.guard import StreamingGuard

#: How a guard for the server is made.
HOW = "demur guard fit RUN --streaming --anchors FILE --out FILE"


def host(
    models: Sequence[LanguageModel],
    guards: Sequence[StreamingGuard] = (),
    *,
    mode: Mode = "hold",
    hold: int = 0,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
) -> dict[str, Engine]:
    """One engine a model, by the model's name.

    Args:
        models: from ``demur.load``.
        guards: each for one of the models; a model without one answers unguarded.
        mode: see ``demur.serve.answer``.
        hold: tokens kept behind in mode ``hold``; with 0 a token leaves once its own step passed.
        limits: the defaults when None.
        metrics: a registry of its own when None.

    Raises:
        InputError: a model twice, two guards for one, or hold below 0.
        FingerprintError: a guard that fits none of the models; says how to fit one.
    """
    if hold < 0:
        raise InputError(f"hold is {hold}; it must be 0 or more.")
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
    limits, metrics = limits or Limits(), metrics or Metrics()
    return {
        model.name: _engine(model, own.get(model.name), mode, hold, limits, metrics)
        for model in models
    }


def read_guard(path: Path) -> StreamingGuard:
    """A streaming guard from its file.

    Raises:
        InputError: not there, or not one; says how to fit one.
    """
    from demur.guard import StreamingGuard

    try:
        return StreamingGuard.load(path)
    except InputError as error:
        raise InputError(f"{error} The server needs a streaming guard. Fit one: {HOW}") from error


def _engine(
    model: LanguageModel,
    guard: StreamingGuard | None,
    mode: Mode,
    hold: int,
    limits: Limits,
    metrics: Metrics,
) -> Engine:
    sampler, pooling = sampler_from(model.traits.sampler), model.traits.pooling
    if guard:
        sampler, pooling = sampler_from(guard.fingerprint.sampler), guard.fingerprint.pooling
        guard.require(fingerprint(model, sampler, pooling=pooling))
        if isinstance(sampler, Autoregressive) and pooling != "running":
            raise FingerprintError(
                f"The guard reads {pooling!r} states, which are known only after a token has left. "
                f"Trace with --pooling running and fit again: {HOW}"
            )
    return Engine(
        model,
        sampler,
        pooling=pooling,
        guard=guard,
        mode=mode,
        hold=hold,
        limits=limits,
        metrics=metrics,
    )
