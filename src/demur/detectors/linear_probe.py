"""A linear probe on the states: supervised, so it knows the attacks it was shown.

Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes, arXiv:1610.01644:
logistic regression (scikit-learn, L2 penalty 1) on standardised states. The score is the mean over
steps of the probe's logit. What a probe reaches on attacks of its training says nothing of others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demur.sri import Anchors
from demur.types import Traces

#: States taken of each trace, evenly spaced: neighbouring steps say nearly the same.
STEPS = 8


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        anchors: say which layer and alignment the states have.
        weights: ``[D]`` of the states as they are.
        bias: of the logit.
    """

    anchors: Anchors
    weights: NDArray[np.float64]
    bias: float

    def logits(self, traces: Traces) -> NDArray[np.float64]:
        """Logit of harm at each step: ``[N, T]``, 0 on the decision boundary."""
        return np.asarray(self.anchors.states(traces) @ self.weights + self.bias)

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """See ``demur.detectors.Detector``."""
        return np.asarray(self.logits(traces).mean(axis=1), dtype=np.float32)


def fit(benign: Traces, harmful: Traces, *, anchors: Anchors) -> LinearProbe:
    """Fit one probe for all steps on traces of both classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    parts = [_some_steps(anchors.states(traces)) for traces in (benign, harmful)]
    labels = np.repeat([0, 1], [len(part) for part in parts])
    scaler = StandardScaler().fit(np.concatenate(parts))
    found = LogisticRegression(max_iter=1000, class_weight="balanced").fit(
        scaler.transform(np.concatenate(parts)), labels
    )
    weights = found.coef_[0] / scaler.scale_
    return LinearProbe(anchors, weights, float(found.intercept_[0] - weights @ scaler.mean_))


def _some_steps(states: NDArray[np.float32]) -> NDArray[np.float64]:
    """``[N, T, D]`` -> ``[N * STEPS, D]``."""
    steps = states.shape[1]
    taken = np.unique(np.linspace(0, steps - 1, min(steps, STEPS)).round().astype(int))
    return states[:, taken].reshape(-1, states.shape[2]).astype(np.float64)
