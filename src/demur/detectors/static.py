"""The static signal: what the first step alone says (arXiv:2602.02600, table 4).

Our reading: how many benign spreads sigma at the first step lies from its benign mean, to either
side. It shows what the steps after the first add.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.detectors.method import MIN_SPREAD


@dataclass(frozen=True)
class Static:
    """Benign mean and spread of the first step."""

    mean: float
    spread: float

    def score(self, signals: ArrayLike) -> NDArray[np.float32]:
        """Distance in spreads: ``[N, T]`` -> ``[N]``, 0 or more."""
        first = np.asarray(signals, dtype=np.float32)[:, 0]
        return np.asarray(np.abs(first - self.mean) / self.spread, dtype=np.float32)


def fit(signals: ArrayLike) -> Static:
    """Fit on benign signals ``[N, T]``."""
    first = np.asarray(signals, dtype=np.float64)[:, 0]
    return Static(float(first.mean()), max(float(first.std()), MIN_SPREAD))
