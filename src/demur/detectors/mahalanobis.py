"""Mahalanobis distance of a signal from the benign ones.

Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, arXiv:1807.03888,
with one class:

    1. mean and covariance of benign signals;
    2. the score is the squared Mahalanobis distance from the mean.

Differs from the paper: it is taken of SRI signals, not of layer features, and the covariance is
shrunk (Ledoit and Wolf 2004), because a few hundred signals leave T x T values undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Mahalanobis:
    """A fitted distance.

    Attributes:
        mean: ``[T]``.
        precision: ``[T, T]`` inverse covariance.
    """

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]

    def score(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Squared distance: ``[N, T]`` -> ``[N]``, 0 or more."""
        away = np.asarray(signals, dtype=np.float64) - self.mean
        distance = np.einsum("nt,ts,ns->n", away, self.precision, away)
        return np.asarray(distance, dtype=np.float32)


def fit(signals: ArrayLike) -> Mahalanobis:
    """Fit on benign signals ``[N, T]``."""
    from sklearn.covariance import LedoitWolf

    values = np.asarray(signals, dtype=np.float64)
    # A variance of zero in every step has no inverse; this floor is far below any real one.
    noise = 1e-12 * np.eye(values.shape[1])
    covariance = LedoitWolf().fit(values).covariance_ + noise
    return Mahalanobis(values.mean(axis=0), np.linalg.inv(covariance))
