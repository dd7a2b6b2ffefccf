"""One answer to generate, and what its stream says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

from demur.sampling import Sampler

FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True)
class Started:
    """The job has a place in the batch."""


@dataclass(frozen=True)
class Said:
    """Text that passed and may leave."""

    text: str


@dataclass(frozen=True)
class Seen:
    """One step as the operator sees it, drafts included.

    Attributes:
        tokens: committed tokens, -1 where masked.
        draft: the same with predictions.
        sigma: the guard's signal in [0, 1]; None without a guard.
        flagged: whether the guard has flagged the generation by now.
    """

    tokens: list[int]
    draft: list[int]
    sigma: float | None
    flagged: bool


@dataclass(frozen=True)
class Finished:
    """The last event of a generation that came to an end.

    Attributes:
        reason: why it ended.
        tokens: generated, those withheld included.
        evidence: what the guard saw; None without a guard.
    """

    reason: FinishReason
    tokens: int
    evidence: Mapping[str, Any] | None


@dataclass(frozen=True)
class Failed:
    """The last event of a generation that did not: what went wrong is in the log."""

    cause: Literal["model", "time"]


Event = Started | Said | Seen | Finished | Failed


@dataclass(eq=False, kw_only=True)
class Job:
    """One answer to generate.

    Attributes:
        prompt: token ids, the beginning of the answer included.
        sampler: settings; its ``new_tokens`` is the room that the answer has.
        seed: of this answer alone, in [0, 2**63).
        most: most tokens to give.
        stop: texts that end the answer; none of them is part of it.
        client: who asks, for fairness.
        index: which of the request's answers.
        watched: whether the operator wants to see every step.
        calibrated: whether the request is of the kind that the guard was calibrated on.
        whole: whether nothing in the request ends the answer before the end that the calibration's
            answers had: a stop text, or fewer tokens.
        events: where its events go, each with the job.
        arrived: ``time.monotonic()`` at arrival.
    """

    prompt: list[int]
    sampler: Sampler
    seed: int
    most: int
    events: asyncio.Queue[tuple[Job, Event]]
    stop: tuple[str, ...] = ()
    client: str = ""
    index: int = 0
    watched: bool = False
    calibrated: bool = True
    whole: bool = True
    arrived: float = field(default_factory=monotonic)
