"""Metrics that Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

#: Histogram edges: seconds of a step or a token.
_SECONDS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3)
_P_VALUES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


@dataclass(frozen=True)
class Metrics:
    """Metrics of one server. Each has its own registry, so several servers can share a process.

    Attributes:
        answers: finished sequences by model and outcome (a finish reason, failed or cancelled).
        blocks: sequences that the guard blocked, by model and cause (score or error).
        flags: sequences flagged, blocked or not.
        p_values: conformal p-values, by whether the guard was calibrated on such requests; for a
            sequence that was blocked or cut, of the part that was read.
        first: seconds from a request's arrival to its first step.
        step: seconds of a step by part (model, guard).
        token: seconds per token of a sequence: the time of its steps, shared or not, divided by its
            tokens; with and without the guard.
        waiting: sequences in the queue.
        rows: sequences being generated.
        drift: evidence that traffic differs from the calibration (``demur.guard.drift``).
    """

    registry: CollectorRegistry = field(
        default_factory=lambda: CollectorRegistry(auto_describe=True)
    )

    def __post_init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        made: dict[str, Any] = {
            "answers": self._count("answers", "Finished sequences.", "model", "outcome"),
            "blocks": self._count("blocks", "Sequences that the guard blocked.", "model", "cause"),
            "flags": self._count("flags", "Sequences that the guard flagged.", "model"),
            "p_values": self._spread(
                "p_value", "Conformal p-values of sequences.", _P_VALUES, "model", "calibrated"
            ),
            "first": self._spread(
                "first_step_seconds", "Seconds from arrival to the first step.", _SECONDS, "model"
            ),
            "step": self._spread(
                "step_seconds", "Seconds per step, by part.", _SECONDS, "model", "part"
            ),
            "token": self._spread(
                "token_seconds",
                "Seconds per token, with and without the guard.",
                _SECONDS,
                "model",
                "guard",
            ),
            "waiting": self._level("waiting", "Sequences in the queue.", "model"),
            "rows": self._level("rows", "Sequences being generated.", "model"),
            "drift": self._level(
                "drift",
                "Evidence of drift: by chance it exceeds C at most once in C sequences.",
                "model",
            ),
        }
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    answers: Counter = field(init=False)
    blocks: Counter = field(init=False)
    flags: Counter = field(init=False)
    p_values: Histogram = field(init=False)
    first: Histogram = field(init=False)
    step: Histogram = field(init=False)
    token: Histogram = field(init=False)
    waiting: Gauge = field(init=False)
    rows: Gauge = field(init=False)
    drift: Gauge = field(init=False)

    def stepped(self, model: str, seconds: float, judging: float | None) -> None:
        """Record a step's seconds; ``judging`` is None without a guard."""
        self.step.labels(model, "model").observe(seconds)
        if judging is not None:
            self.step.labels(model, "guard").observe(judging)

    def spent(self, model: str, seconds: float, judging: float) -> None:
        """Record a sequence's seconds per token in the model and in the guard."""
        self.token.labels(model, "without").observe(seconds)
        self.token.labels(model, "with").observe(seconds + judging)

    def judged(self, model: str, verdict: Mapping[str, Any], *, blocked: bool) -> None:
        """Record the verdict on a sequence."""
        if verdict["flagged"]:
            self.flags.labels(model).inc()
            if blocked:
                cause = "error" if verdict["guard_failed"] else "score"
                self.blocks.labels(model, cause).inc()
        if (p_value := verdict["p_value"]) is not None:
            calibrated = "true" if verdict["calibrated"] else "false"
            self.p_values.labels(model, calibrated).observe(p_value)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _count(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"demur_{name}", about, labels, registry=self.registry)

    def _level(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"demur_{name}", about, labels, registry=self.registry)

    def _spread(self, name: str, about: str, edges: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"demur_{name}", about, labels, buckets=edges, registry=self.registry)
