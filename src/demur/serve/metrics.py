"""What Prometheus reads at ``/metrics``."""

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

#: Seconds of a step or a token.
_SECONDS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3)
_P_VALUES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


@dataclass(frozen=True)
class Metrics:
    """Figures of one server; a registry of its own, so that several servers can share a process.

    Attributes:
        answers: ended answers by model and outcome (a finish reason, failed or cancelled).
        blocks: answers that the guard blocked, by model and cause (score or error).
        flags: answers flagged, blocked or not.
        p_values: conformal p-values of answers, by whether the guard was calibrated on such requests;
            an answer that was blocked or cut has that of what was read of it.
        first: seconds from a request's arrival to its first step.
        step: seconds of a step by part: the model's and the guard's.
        token: seconds a token of an answer, from its first step to its last: what its steps took,
            shared with others or not, over its tokens; without the guard's share and with it.
        waiting: answers in the queue.
        rows: answers being generated.
        drift: evidence that traffic is not like the calibration's (``demur.guard.drift``).
    """

    registry: CollectorRegistry = field(
        default_factory=lambda: CollectorRegistry(auto_describe=True)
    )

    def __post_init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        made: dict[str, Any] = {
            "answers": self._count("answers", "Ended answers.", "model", "outcome"),
            "blocks": self._count("blocks", "Answers that the guard blocked.", "model", "cause"),
            "flags": self._count("flags", "Answers that the guard flagged.", "model"),
            "p_values": self._spread(
                "p_value", "Conformal p-values.", _P_VALUES, "model", "calibrated"
            ),
            "first": self._spread(
                "first_step_seconds", "Arrival to first step.", _SECONDS, "model"
            ),
            "step": self._spread("step_seconds", "A step, by part.", _SECONDS, "model", "part"),
            "token": self._spread("token_seconds", "A token.", _SECONDS, "model", "guard"),
            "waiting": self._level("waiting", "Answers in the queue.", "model"),
            "rows": self._level("rows", "Answers being generated.", "model"),
            "drift": self._level(
                "drift",
                "Evidence that traffic changed: C or more once in C answers by chance.",
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
        """A step took this long; ``judging`` is None without a guard."""
        self.step.labels(model, "model").observe(seconds)
        if judging is not None:
            self.step.labels(model, "guard").observe(judging)

    def spent(self, model: str, seconds: float, judging: float) -> None:
        """An answer took this long a token in the model and in the guard."""
        self.token.labels(model, "without").observe(seconds)
        self.token.labels(model, "with").observe(seconds + judging)

    def judged(self, model: str, verdict: Mapping[str, Any], *, blocked: bool) -> None:
        """An answer has this verdict."""
        if verdict["flagged"]:
            self.flags.labels(model).inc()
            if blocked:
                cause = "error" if verdict["guard_failed"] else "score"
                self.blocks.labels(model, cause).inc()
        if (p_value := verdict["p_value"]) is not None:
            calibrated = "true" if verdict["calibrated"] else "false"
            self.p_values.labels(model, calibrated).observe(p_value)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _count(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"demur_{name}", about, labels, registry=self.registry)

    def _level(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"demur_{name}", about, labels, registry=self.registry)

    def _spread(self, name: str, about: str, edges: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"demur_{name}", about, labels, buckets=edges, registry=self.registry)
