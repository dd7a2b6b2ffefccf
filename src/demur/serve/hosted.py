"""A model that is served, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from demur.models.base import LanguageModel
from demur.sampling import Sampler
from demur.serve.answer import Mode
from demur.serve.limits import Limits
from demur.serve.metrics import Metrics

if TYPE_CHECKING:
    from demur.guard import StreamingGuard

#: What happens to requests that the guard's false-positive rate does not cover: judged like all
#: others, marked and never blocked, or not served.
Uncalibrated = Literal["block", "audit", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """A model that is served, and how.

    Attributes:
        model: from ``demur.load``.
        sampler: settings that requests start from (see ``demur.serve.host``).
        pooling: of the states that the guard reads.
        guard: fitted on the same; None leaves everything unguarded.
        mode: see ``demur.serve.answer``.
        hold: tokens kept behind in mode ``hold``.
        uncalibrated: what happens to requests of another kind than the calibration's.
        limits: rows, queue and time.
        metrics: where figures go.
    """

    model: LanguageModel
    sampler: Sampler
    pooling: str
    guard: StreamingGuard | None
    mode: Mode
    hold: int
    uncalibrated: Uncalibrated
    limits: Limits
    metrics: Metrics
