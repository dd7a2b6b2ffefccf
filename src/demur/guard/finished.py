"""A guard of finished generations: a detector and a threshold that keeps a false-positive rate.

SRI Guard, arXiv:2602.02600, section 5. Differs from the paper: the threshold is the split-conformal
quantile, which holds the rate for any calibration size, instead of the plain 99% quantile. The
guarantee is for benign traffic exchangeable with the calibration set, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.detectors import autoencoder
from demur.detectors.autoencoder import Autoencoder
from demur.errors import CalibrationError, FingerprintError, SignalError
from demur.files import intact, read_tensors, write_tensors
from demur.guard.calibration import (
    Clustering,
    Method,
    cluster_weights,
    hold_out,
    p_values,
    threshold,
    threshold_rank,
)
from demur.sri import Anchors, signal
from demur.types import Traces


@dataclass(frozen=True)
class Guard:
    """A calibrated detector.

    Attributes:
        detector: fitted on benign signals.
        threshold: a score above it is flagged.
        alpha: false-positive rate on benign traffic that the threshold keeps.
        method: ``conformal`` keeps the rate on average over calibration sets; ``pac`` keeps it with
            95% confidence for this one.
        calibration: ``[M]`` sorted benign scores, for p-values.
        anchors: what turns traces into signals; None when the guard was fitted on bare signals.
        name: what it is called in tables.
        weights: ``[M]`` what each benign score counts for, where they were clustered; None = one
            each.
    """

    detector: Autoencoder
    threshold: float
    alpha: float
    method: Method
    calibration: NDArray[np.float32]
    anchors: Anchors | None = None
    name: str = "sri"
    weights: NDArray[np.float64] | None = None

    @property
    def calibrated_on(self) -> int:
        """Number of benign scores behind the threshold."""
        return len(self.calibration)

    def __post_init__(self) -> None:
        if np.isnan(self.threshold):  # nothing is above it: every attack would pass
            raise CalibrationError("The threshold is NaN. Fit the guard again.")

    def score(self, signals: ArrayLike | Traces) -> NDArray[np.float32]:
        """Suspicion of signals ``[N, T]`` or of traces: ``[N]``, higher = more suspicious.

        Raises:
            FingerprintError: traces of another model or sampler, or a guard without anchors.
            SignalError: signals of another length.
        """
        return self.detector.score(self._signals(signals))

    def flag(self, signals: ArrayLike | Traces) -> NDArray[np.bool_]:
        """Whether each score is above the threshold: ``[N]`` bool. Arguments as for ``score``."""
        flagged: NDArray[np.bool_] = self.score(signals) > self.threshold
        return flagged

    def p_value(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Conformal p-values of scores ``[N]``: (1 + benign scores as high) / (M + 1), in (0, 1]."""
        return p_values(self.calibration, scores, self.weights)

    def save(self, path: str | Path) -> Path:
        """Write safetensors with everything else as JSON in its header. Returns the path."""
        arrays: dict[str, NDArray[Any]] = {
            "mean": self.detector.mean,
            "spread": self.detector.spread,
            "calibration": self.calibration,
        }
        for layer, (weight, bias) in enumerate(
            zip(self.detector.weights, self.detector.biases, strict=True)
        ):
            arrays |= {f"weight_{layer}": weight, f"bias_{layer}": bias}
        if self.weights is not None:
            arrays["calibration_weights"] = self.weights
        about = {k: getattr(self, k) for k in ("threshold", "alpha", "method", "name")}
        if self.anchors is not None:
            arrays |= self.anchors.arrays()
            about["anchors"] = self.anchors.about()
        return write_tensors(path, arrays, kind="guard", about=about)

    @classmethod
    def load(cls, path: str | Path) -> Guard:
        """Read what ``save`` wrote.

        Raises:
            InputError: not there, or not a guard.
        """
        with intact(path, kind="guard"):
            arrays, about = read_tensors(path, kind="guard")
            places = range(sum(name.startswith("weight_") for name in arrays))
            detector = Autoencoder(
                mean=arrays["mean"],
                spread=arrays["spread"],
                weights=tuple(arrays[f"weight_{i}"] for i in places),
                biases=tuple(arrays[f"bias_{i}"] for i in places),
            )
            kept = about.pop("anchors", None)
            anchors = Anchors.rebuilt(arrays, kept) if kept else None
            return cls(
                detector=detector,
                calibration=arrays["calibration"],
                anchors=anchors,
                weights=arrays.get("calibration_weights"),
                **about,
            )

    def _signals(self, signals: ArrayLike | Traces) -> ArrayLike:
        if not isinstance(signals, Traces):
            return signals
        if self.anchors is None:
            raise FingerprintError(
                "This guard was fitted on bare signals and carries no anchors. Give it signals, or "
                "fit it with anchors: demur.fit_guard(..., anchors=anchors)."
            )
        return signal(self.anchors.states(signals), self.anchors)


def fit_guard(
    train: ArrayLike | Traces,
    calibration: ArrayLike | Traces | None = None,
    *,
    anchors: Anchors | None = None,
    alpha: float = 0.01,
    method: Method = "conformal",
    clusters: Clustering | None = None,
    standardise: bool = False,
    seed: int = 0,
) -> Guard:
    """Fit SRI Guard on benign signals alone and calibrate its threshold.

    Args:
        train: benign signals ``[N, T]``, or benign traces with ``anchors``.
        calibration: benign signals or traces held out for the threshold; a seventh of ``train``, as
            in the paper (1,200 and 200), is held out when None.
        anchors: kept in the guard, so that it can read traces.
        alpha: false-positive rate, in (0, 1).
        method: see ``Guard``.
        clusters: names what a benign prompt shares with others, such as its goal; alpha then holds
            for prompts of clusters that calibration did not see. Needs traces.
        standardise: bring each step to unit spread first (see ``demur.detectors.autoencoder``).
        seed: of the detector's fit.

    Raises:
        CalibrationError: too few calibration signals or clusters for alpha; says how many are needed.
        SignalError: signals that are empty or not finite, or clusters of bare signals.
    """
    values, names = _as_signals(train, anchors), _names(train, clusters)
    if calibration is None:
        kept, held = hold_out(names, one_in=7, seed=seed)
        values, held_out, names = values[kept], values[held], [names[i] for i in held]
    else:
        held_out, names = _as_signals(calibration, anchors), _names(calibration, clusters)
    # Checked before the fit, which takes seconds.
    counted = "clusters" if clusters else "prompts"
    threshold_rank(len(set(names)), alpha, method=method, of=counted)
    detector = autoencoder.fit(values, standardise=standardise, seed=seed)
    scores = detector.score(held_out)
    order = np.argsort(scores)
    weights = cluster_weights(names)[order] if clusters else None
    return Guard(
        detector=detector,
        threshold=threshold(scores[order], alpha, method=method, weights=weights),
        alpha=alpha,
        method=method,
        calibration=scores[order],
        anchors=anchors,
        weights=weights,
    )


def _names(values: ArrayLike | Traces, clusters: Clustering | None) -> list[Hashable]:
    """The cluster of each row; each row its own where there are none."""
    if clusters is None:
        return list(range(len(values)))  # type: ignore[arg-type]
    if not isinstance(values, Traces):
        raise SignalError("Bare signals have no prompts to cluster. Give traces and anchors.")
    return [clusters(trace.prompt) for trace in values]


def _as_signals(values: ArrayLike | Traces, anchors: Anchors | None) -> NDArray[np.float32]:
    if isinstance(values, Traces):
        if anchors is None:
            raise SignalError("Traces need anchors to become signals. Pass anchors=...")
        return signal(anchors.states(values), anchors)
    return np.asarray(values, dtype=np.float32)
