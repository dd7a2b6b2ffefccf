"""Models with their guards, checked to belong together before anything is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import FingerprintError, InputError
from demur.generation import fingerprint
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, Sampler, sampler_from
from demur.serve.answer import Mode
from demur.serve.asking import DRAWN
from demur.serve.engine import Engine
from demur.serve.hosted import Hosted, Uncalibrated
from demur.serve.limits import Limits
from demur.serve.metrics import Metrics
from demur.types import Record

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
    uncalibrated: Uncalibrated = "block",
    limits: Limits | None = None,
    metrics: Metrics | None = None,
) -> dict[str, Engine]:
    """One engine a model, by the model's name.

    Args:
        models: from ``demur.load``.
        guards: each for one of the models; a model without one answers unguarded.
        mode: see ``demur.serve.answer``.
        hold: tokens kept behind in mode ``hold``; with 0 a token leaves once its own step passed.
        uncalibrated: see ``demur.serve.hosted``; blocking is the default, since whoever asks chooses
            the temperature and the dialogue, and could choose not to be blocked.
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
    engines = {}
    for model in models:
        guard = own.get(model.name)
        sampler, pooling = _generation(model, guard)
        engines[model.name] = Engine(
            Hosted(
                model=model,
                sampler=sampler,
                pooling=pooling,
                guard=guard,
                mode=mode,
                hold=hold,
                uncalibrated=uncalibrated,
                limits=limits,
                metrics=metrics,
            )
        )
    return engines


def coverage(engine: Engine) -> str:
    """One sentence on which requests the guard's false-positive rate holds for, and what it ends.

    Raises:
        InputError: the engine has no guard.
    """
    if engine.guard is None:
        raise InputError(f"{engine.model.name} has no guard. Give one: {HOW}")
    drawn = [f"{k} {getattr(engine.sampler, k)}" for k in DRAWN if hasattr(engine.sampler, k)]
    rest = {
        "block": "others are blocked by the same threshold, with more false alarms",
        "audit": "others are marked and never blocked",
        "refuse": "others are refused",
    }[engine.uncalibrated]
    about = (
        f"the guard of {engine.model.name} keeps its false-positive rate of {engine.guard.alpha:g} for "
        f"one user turn at {', '.join(drawn)}; {rest} (--uncalibrated)."
    )
    if isinstance(engine.sampler, Autoregressive) and engine.mode != "audit":
        about += f" Answers end at {engine.guard.steps} tokens, the last that it reads."
    return about


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


def _generation(model: LanguageModel, guard: StreamingGuard | None) -> tuple[Sampler, str]:
    """Sampler and pooling: the model's own, or those that its guard was fitted on.

    Raises:
        FingerprintError: the guard cannot follow this model's answers as they are generated.
    """
    if guard is None:
        return sampler_from(model.traits.sampler), model.traits.pooling
    sampler, pooling = sampler_from(guard.fingerprint.sampler), guard.fingerprint.pooling
    guard.require(fingerprint(model, sampler, Record(pooling=pooling)))
    if isinstance(sampler, Autoregressive):
        if pooling != "running":
            raise FingerprintError(
                f"The guard reads {pooling!r} states, which are known only after a token has left. "
                f"Trace with --pooling running and fit again: {HOW}"
            )
    elif guard.steps < sampler.steps:
        raise FingerprintError(
            f"The guard reads the first {guard.steps} of {sampler.steps} steps; the others would "
            f"leave unjudged. Fit anchors for all of them and the guard again: {HOW}"
        )
    return sampler, pooling
