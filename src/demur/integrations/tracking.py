"""Metrics of a run as one flat mapping, for an experiment tracker.

report(traces, to=mlflow.log_metrics, anchors=anchors)
report(traces, to=wandb.log, anchors=anchors, guard=guard)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from demur.errors import InputError
from demur.guard import AnyGuard
from demur.judges import refusal_judge
from demur.parts import with_part
from demur.sri import Anchors, signal
from demur.types import Traces

#: Takes metric names and values, as ``mlflow.log_metrics`` and ``wandb.log`` do.
Track = Callable[[Mapping[str, float]], object]


def report(
    traces: Traces,
    *,
    to: Track,
    anchors: Anchors | None = None,
    guard: AnyGuard | None = None,
    judge: str = "paper",
) -> dict[str, float]:
    """Compute a run's metrics and hand them to ``to``. Returns them.

    Args:
        traces: of one run.
        to: called once.
        anchors: adds the signal's mean, final value and mean step-to-step change, all in [0, 1].
        guard: adds the share of flagged generations.
        judge: refusal judge; ``refusal_rate`` is the share of its hits.

    Raises:
        InputError: no traces, or an unknown judge.
        FingerprintError: traces of other runs than the anchors' or the guard's.
    """
    if not traces:
        raise InputError("No traces to report: the run is empty. Trace some prompts first.")
    refused = refusal_judge(judge)
    hits = [refused(trace.prompt.goal, trace.answer).hit for trace in traces]
    found = {
        "traces": float(len(traces)),
        "steps_mean": float(np.mean([trace.n_steps for trace in traces])),
        "refusal_rate": float(np.mean(hits)),
    }
    if anchors is not None:
        sigma = signal(with_part(traces, anchors.part), anchors)
        found["sigma_mean"] = float(sigma.mean())
        found["sigma_final"] = float(sigma[:, -1].mean())
        found["sigma_change"] = float(np.abs(np.diff(sigma, axis=1)).mean())
    if guard is not None:
        found["flagged_rate"] = float(np.mean(guard.score(traces) > guard.threshold))
    to(found)
    return found
