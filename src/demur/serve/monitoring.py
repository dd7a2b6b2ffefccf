"""Metrics that Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

M = TypeVar("M", Counter, Gauge, Histogram)

#: Histogram edges: seconds of a step or a token.
_SECONDS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3)
_P_VALUES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


@final
class Metrics:
    """Metrics of one server, in a registry of their own, so several servers can share a process.

    An outcome is a finish reason, ``failed`` or ``cancelled``; a cause is ``score`` or ``error``. The
    p-value of a sequence that was blocked or cut is that of the part that was read. Seconds per token
    are the time of a sequence's steps, shared or not, divided by its tokens.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)

        def made(kind: Callable[..., M], name: str, about: str, *labels: str, **more: Any) -> M:
            return kind(f"demur_{name}", about, ["model", *labels], registry=self.registry, **more)

        seconds = {"buckets": _SECONDS}
        self.answers = made(Counter, "answers", "Finished sequences.", "outcome")
        self.blocks = made(Counter, "blocks", "Sequences that the guard blocked.", "cause")
        self.flags = made(Counter, "flags", "Sequences that the guard flagged.")
        about = "Conformal p-values of sequences."
        self.p_values = made(Histogram, "p_value", about, "calibrated", buckets=_P_VALUES)
        about = "Seconds from arrival to the first step."
        self.first = made(Histogram, "first_step_seconds", about, **seconds)
        about = "Seconds per step, by part (model, guard)."
        self.step = made(Histogram, "step_seconds", about, "part", **seconds)
        about = "Seconds per token, with and without the guard."
        self.token = made(Histogram, "token_seconds", about, "guard", **seconds)
        self.waiting = made(Gauge, "waiting", "Sequences in the queue.")
        self.rows = made(Gauge, "rows", "Sequences being generated.")
        about = "Evidence of drift: by chance it exceeds C at most once in C sequences."
        self.drift = made(Gauge, "drift", about)

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
