"""How far a signal lies from benign signals: Mahalanobis distance, and the first step alone.

Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, arXiv:1807.03888,
with one class:

    1. mean and covariance of benign signals;
    2. the score is the squared Mahalanobis distance from the mean.

Differs from the paper: it reads SRI signals instead of layer features, and the covariance is shrunk
(Ledoit and Wolf 2004), because a few hundred signals do not determine T x T values.

The static signal (arXiv:2602.02600, table 4) shows what the steps after the first add. Our reading:
the distance of the first step's sigma from its benign mean, in benign spreads, to either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import tanh
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.detectors.log_ratio import log_ratio_of
from demur.detectors.method import MIN_SPREAD, SignalDetector, StepDetector, require_anchors
from demur.sri import TAU, unit


@final
@dataclass(frozen=True)
class Mahalanobis(SignalDetector):
    """A fitted distance.

    Attributes:
        mean: ``[T]``.
        precision: ``[T, T]`` inverse covariance.
    """

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]

    def score_signals(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Squared distance: ``[N, T]`` -> ``[N]``, 0 or more."""
        away = np.asarray(signals, dtype=np.float64) - self.mean
        distance = np.einsum("nt,ts,ns->n", away, self.precision, away)
        return np.asarray(distance, dtype=np.float32)


def fit_mahalanobis(signals: ArrayLike) -> Mahalanobis:
    """Fit on benign signals ``[N, T]``."""
    from sklearn.covariance import LedoitWolf

    values = np.asarray(signals, dtype=np.float64)
    # A variance of zero in every step has no inverse; this floor is far below any real one.
    noise = 1e-12 * np.eye(values.shape[1])
    covariance = LedoitWolf().fit(values).covariance_ + noise
    return Mahalanobis(values.mean(axis=0), np.linalg.inv(covariance))


@final
@dataclass(frozen=True)
class Static(SignalDetector, StepDetector):
    """Benign mean and spread of the first step."""

    mean: float
    spread: float

    def score_signals(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Distance in spreads: ``[N, T]`` -> ``[N]``, 0 or more."""
        first = np.asarray(signals, dtype=np.float32)[:, 0]
        return np.asarray(np.abs(first - self.mean) / self.spread, dtype=np.float32)

    def advance(self, state: NDArray[np.float32], step: int, before: float) -> float:
        """See ``StepDetector.advance``; later steps change nothing."""
        if step > 1:
            return before
        anchors = require_anchors(self.anchors)
        ratio = log_ratio_of(state, unit(anchors.harmless[0]), unit(anchors.harmful[0]))
        sigma = 0.5 * (1 + tanh(0.5 * ratio * TAU / self.tau))
        return abs(sigma - self.mean) / self.spread


def fit_static(signals: ArrayLike) -> Static:
    """Fit on benign signals ``[N, T]``."""
    first = np.asarray(signals, dtype=np.float64)[:, 0]
    return Static(float(first.mean()), max(float(first.std()), MIN_SPREAD))
