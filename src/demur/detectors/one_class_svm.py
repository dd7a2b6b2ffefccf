"""One-class support vector machine on benign signals.

Schoelkopf et al., Estimating the Support of a High-Dimensional Distribution, 2001; scikit-learn's
``OneClassSVM`` with its own defaults (RBF kernel, nu = .5), on signals standardised per step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class OneClassSVM:
    """A fitted machine: scikit-learn's scaler and estimator in a row."""

    pipeline: Any = field(repr=False)

    def score(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Minus the similarity to the support vectors: ``[N, T]`` -> ``[N]``."""
        return np.asarray(-self.pipeline.score_samples(np.asarray(signals)), dtype=np.float32)


def fit(signals: ArrayLike) -> OneClassSVM:
    """Fit on benign signals ``[N, T]``."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import OneClassSVM as Estimator

    return OneClassSVM(make_pipeline(StandardScaler(), Estimator()).fit(np.asarray(signals)))
