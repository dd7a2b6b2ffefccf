"""Fit a streaming guard: what is usual at each step, and the threshold of whole generations.

Steps and sources: see ``demur.guard.streaming``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from demur.detectors.method import MIN_SPREAD
from demur.errors import CalibrationError, SignalError
from demur.guard.calibration import Clustering, Method, cluster_weights, hold_out, threshold
from demur.guard.streaming import Group, Grouping, StreamingGuard, step_scores, steps_ran
from demur.sri import Anchors, log_ratio
from demur.types import Traces

#: Benign share that a step's spread reaches down to.
LOW = 0.05

#: Benign generations that must reach a step; later steps keep the last such step's figures.
FEWEST = 20


def fit_streaming_guard(
    train: Traces,
    calibration: Traces | None = None,
    *,
    anchors: Anchors,
    alpha: float = 0.01,
    method: Method = "conformal",
    groups: Grouping | None = None,
    clusters: Clustering | None = None,
    seed: int = 0,
) -> StreamingGuard:
    """Fit on benign generations alone and calibrate on others.

    Args:
        train: benign generations that say what is usual at each step.
        calibration: benign generations held out for the threshold; half of ``train`` when None, since
            what is usual at a step needs as many as the threshold.
        anchors: made from the same model and sampler.
        alpha: probability of an alarm anywhere in a benign generation, in (0, 1).
        method: see ``StreamingGuard``.
        groups: names each calibration prompt's group, which then gets a threshold of its own and
            keeps alpha by itself (Mondrian conformal prediction).
        clusters: names what a calibration prompt shares with others, such as its goal; alpha then
            holds for prompts of clusters that calibration did not see, and clusters, not prompts,
            must be many. Train on other clusters too.
        seed: of what is held out.

    Raises:
        CalibrationError: too few calibration traces or clusters, in some group; says how many are
            needed.
        FingerprintError: train, calibration and anchors were not made by the same.
        SignalError: too few train traces, or anchors that need to know a generation's length.
    """
    if anchors.alignment == "resample":
        raise SignalError(
            "Anchors aligned by 'resample' need to know how long a generation will be. Fit them "
            "with alignment='repeat_last' for streaming."
        )
    if calibration is None:
        names = [clusters(t.prompt) if clusters else i for i, t in enumerate(train)]
        train, calibration = (
            Traces(tuple(train[i] for i in part)) for part in hold_out(names, one_in=2, seed=seed)
        )
    if len(train) < FEWEST:
        raise SignalError(
            f"{len(train)} benign traces do not say what is usual at a step. Give at least {FEWEST}."
        )
    train.fingerprint.require(
        calibration.fingerprint,
        what="Train and calibration traces differ",
        fix="Trace both with the same model and sampler.",
    )
    middle, spread = _usual(anchors, train)
    statistics = step_scores(anchors, middle, spread, calibration).max(axis=1)
    fitted = {}
    for name, rows in _members(calibration, groups).items():
        order = sorted(rows, key=lambda row: statistics[row])
        weights = (
            cluster_weights([clusters(calibration[row].prompt) for row in order])
            if clusters
            else None
        )
        fitted[name] = _group(name, statistics[order], alpha, method, weights)
    return StreamingGuard(anchors, middle, spread, fitted, alpha, method, train.fingerprint)


def _usual(anchors: Anchors, train: Traces) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median of the log-ratio at each step ``[T]`` and the way from it to the low quantile ``[T]``."""
    ratio, ran = log_ratio(anchors.states(train), anchors), steps_ran(train, anchors.steps)
    levels = np.zeros((anchors.steps, 2), dtype=np.float32)
    for step, running in enumerate(ran.T):
        if running.sum() >= FEWEST or not step:
            levels[step] = np.quantile(ratio[running, step], [0.5, LOW])
        else:
            levels[step] = levels[step - 1]
    return levels[:, 0], np.maximum(levels[:, 0] - levels[:, 1], np.float32(MIN_SPREAD))


def _members(traces: Traces, groups: Grouping | None) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, trace in enumerate(traces):
        found.setdefault(groups(trace.prompt) if groups else "all", []).append(place)
    return found


def _group(
    name: str,
    ordered: NDArray[np.float32],
    alpha: float,
    method: Method,
    weights: NDArray[np.float64] | None,
) -> Group:
    try:
        return Group(threshold(ordered, alpha, method=method, weights=weights), ordered, weights)
    except CalibrationError as error:
        raise CalibrationError(f"Group {name!r}: {error}") from error
