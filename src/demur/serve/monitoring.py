"""Metrics that Prometheus reads at ``/metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

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
        of: Any = {"registry": self.registry}
        self.answers = Counter("demur_answers", "Finished sequences.", ["model", "outcome"], **of)
        self.blocks = Counter(
            "demur_blocks", "Sequences that the guard blocked.", ["model", "cause"], **of
        )
        self.flags = Counter("demur_flags", "Sequences that the guard flagged.", ["model"], **of)
        self.p_values = Histogram(
            "demur_p_value",
            "Conformal p-values of sequences.",
            ["model", "calibrated"],
            buckets=_P_VALUES,
            **of,
        )
        self.first = Histogram(
            "demur_first_step_seconds",
            "Seconds from arrival to the first step.",
            ["model"],
            buckets=_SECONDS,
            **of,
        )
        self.step = Histogram(
            "demur_step_seconds",
            "Seconds per step, by part (model, guard).",
            ["model", "part"],
            buckets=_SECONDS,
            **of,
        )
        self.token = Histogram(
            "demur_token_seconds",
            "Seconds per token, with and without the guard.",
            ["model", "guard"],
            buckets=_SECONDS,
            **of,
        )
        self.waiting = Gauge("demur_waiting", "Sequences in the queue.", ["model"], **of)
        self.rows = Gauge("demur_rows", "Sequences being generated.", ["model"], **of)
        self.drift = Gauge(
            "demur_drift",
            "Evidence of drift: by chance it exceeds C at most once in C sequences.",
            ["model"],
            **of,
        )

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
