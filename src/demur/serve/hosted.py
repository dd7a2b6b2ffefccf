"""How models are served: limits, and what the guard does. Loads no model library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import InputError

if TYPE_CHECKING:
    from demur.guard import StreamingGuard
    from demur.models.base import LanguageModel
    from demur.sampling import Sampler
    from demur.serve.monitoring import Metrics
    from demur.sri import Anchors
    from demur.types import Record

#: How to make a guard for the server.
HOW = "demur guard fit RUN --streaming --anchors FILE --out FILE"

#: Sampler settings that a request can change and a guard's calibration depends on.
DRAWN = ("temperature", "top_p")


#: ``hold`` releases tokens once they have passed, or a number of tokens later; ``buffer`` releases an
#: answer once all of it has passed; ``audit`` marks answers and blocks none.
GuardMode = Literal["hold", "buffer", "audit"]

#: What happens to requests that the guard was not calibrated on: blocked like all others, marked and
#: never blocked, or refused.
Uncalibrated = Literal["block", "audit", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a server. Each has its own HTTP status; none cuts a stream short.

    Attributes:
        rows: sequences generated at a time, per model.
        queue: sequences waiting, per model; more get 429.
        connections: open connections; requests beyond get 503.
        body: bytes of a request's body (413).
        prompt_tokens: tokens of a prompt, within the model's context (400).
        messages: messages of a chat (400).
        choices: sequences of one request, ``n`` times the number of prompts (400).
        seconds: from a request's arrival to its end; what is unfinished then ends as ``length``.
        send_seconds: for a client to send its request, and to read a part of its stream.
    """

    rows: int = 64
    queue: int = 256
    connections: int = 1024
    body: int = 1 << 20
    prompt_tokens: int = 8192
    messages: int = 256
    choices: int = 16
    seconds: float = 300.0
    send_seconds: float = 30.0

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) <= 0:
                raise InputError(
                    f"The limit {each.name} is {getattr(self, each.name)}; it must be above 0."
                )


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of all models of a server.

    Attributes:
        mode: when text is released, see ``GuardMode``.
        hold: tokens released late in mode ``hold``; with 0 a token is released once its own step
            has passed.
        uncalibrated: see ``Uncalibrated``. The default is to block, because clients choose temperature
            and messages and could otherwise choose not to be blocked.
        limits: rows, queue, sizes and times.
    """

    mode: GuardMode = "hold"
    hold: int = 0
    uncalibrated: Uncalibrated = "block"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.hold < 0:
            raise InputError(f"hold is {self.hold}; it must be 0 or more.")


@dataclass(frozen=True)
class HostedModel:
    """One served model.

    Attributes:
        model: from ``demur.load``.
        sampler: settings that requests start from: the guard's, or the model's own.
        record: layers and pooling of the states that the guard reads.
        guard: None releases everything.
        options: the server's options.
        metrics: the server's metrics.
        anchors: for the signal of the live page, where the guard gives none; None shows the text only.
    """

    model: LanguageModel
    sampler: Sampler
    record: Record
    guard: StreamingGuard | None
    options: ServeOptions
    metrics: Metrics
    anchors: Anchors | None = None

    @property
    def blocks(self) -> bool:
        """Whether a guard can block answers."""
        return self.guard is not None and self.options.mode != "audit"

    @property
    def any_length(self) -> bool:
        """Whether a request can choose any number of tokens; diffusion responses have a fixed size."""
        return self.sampler.releases == "token"

    def sampler_for(self, settings: Mapping[str, Any], *, room: int) -> Sampler:
        """The sampler with a request's settings, and room for this many tokens."""
        length = {self.sampler.length_field: room} if self.any_length else {}
        sampler: Sampler = replace(self.sampler, **settings, **length)  # type: ignore[type-var]
        return sampler

    def coverage(self) -> str:
        """For which requests the guard's false-positive rate holds, and where answers end.

        Raises:
            InputError: there is no guard.
        """
        if self.guard is None:
            raise InputError(f"{self.model.name} has no guard. Give one: {HOW}")
        drawn = [f"{k} {getattr(self.sampler, k)}" for k in DRAWN if hasattr(self.sampler, k)]
        rest = {
            "block": "others are blocked at the same threshold, with more false positives",
            "audit": "others are marked and never blocked",
            "refuse": "others are refused",
        }[self.options.uncalibrated]
        about = (
            f"the guard of {self.model.name} keeps its false-positive rate of {self.guard.alpha:g} "
            f"for one user turn at {', '.join(drawn)}; {rest} (--uncalibrated)."
        )
        if self.any_length and self.blocks:
            about += f" Answers end after {self.guard.steps} tokens, the last that the guard reads."
        return f"{about} Caution: {self.guard.few}." if self.guard.few else about
