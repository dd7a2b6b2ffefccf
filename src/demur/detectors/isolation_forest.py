"""Isolation forest on benign signals.

Liu, Ting and Zhou, Isolation Forest, ICDM 2008; scikit-learn's ``IsolationForest`` with its own
defaults (100 trees of 256 samples).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class IsolationForest:
    """A fitted forest: scikit-learn's estimator."""

    estimator: Any = field(repr=False)

    def score(self, signals: ArrayLike) -> NDArray[np.float32]:
        """The paper's anomaly score: ``[N, T]`` -> ``[N]`` in [0, 1]."""
        return np.asarray(-self.estimator.score_samples(np.asarray(signals)), dtype=np.float32)


def fit(signals: ArrayLike, *, seed: int = 0) -> IsolationForest:
    """Fit on benign signals ``[N, T]``; ``seed`` of the trees."""
    from sklearn.ensemble import IsolationForest as Estimator

    return IsolationForest(Estimator(random_state=seed).fit(np.asarray(signals)))
