"""Detectors that project states onto a direction: the refusal direction, and a linear probe.

**Refusal direction.** Arditi et al., Refusal in Language Models Is Mediated by a Single Direction,
arXiv:2406.11717:

    1. the direction is the difference of mean states of harmful and of harmless prompts, of unit
       length;
    2. the score is a state's projection onto it: higher = closer to what is refused.

Differs from the paper: the means are the anchors', so the harmful side holds refused generations
only, there is one direction a step, and the score is the mean over steps. The layer is the middle
one; the paper searches for it.

**Linear probe.** Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes,
arXiv:1610.01644: logistic regression (scikit-learn, L2 penalty 1) on standardised states. The score
is the mean over steps of the probe's logit. A probe is supervised: its results on the
attacks that it was fitted on say nothing about other attacks.

**Hesitation.** D2-Monitor, arXiv:2605.25893: a step hesitates when the probe's output falls within a
small margin of the decision boundary, and the number of hesitating steps tells how hard the generation
is to judge. Differs from the paper: there the count decides whether a larger probe is asked; here it is
the score. The margin, .4 on either side of a probability of .5, is our reading. On ``organism-dlm``
with prefilled answers it does not beat chance: AUROC 0.46, 14 jailbreaks against 24 harmless prompts
with the same prefill. The probe does not hesitate at any step there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import final

import numpy as np
from numpy import vdot
from numpy.typing import NDArray

from demur.detectors.method import StepDetector
from demur.sri import Anchors
from demur.types import Traces

#: Number of evenly spaced states to take from each trace: neighbouring steps are nearly alike.
STEPS = 8

#: Largest absolute logit of a hesitating step: a probability from .1 to .9.
MARGIN = log(0.9 / 0.1)


@final
@dataclass(frozen=True)
class RefusalDirection(StepDetector):
    """One direction a step.

    Attributes:
        directions: ``[T, D]`` of unit length.
    """

    directions: NDArray[np.float32]

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Mean projection over the steps; see ``Detector.score``."""
        projections = np.vecdot(self.states(traces), self.directions)
        return np.asarray(projections.mean(axis=1), dtype=np.float32)

    def advance(self, state: NDArray[np.float32], step: int, before: float) -> float:
        """See ``StepDetector.advance``."""
        return _mean(float(vdot(self.directions[step - 1], state)), step, before)


def fit_refusal_direction(anchors: Anchors) -> RefusalDirection:
    """Take the directions from anchors."""
    apart = anchors.harmful - anchors.harmless
    length = np.linalg.norm(apart, axis=1, keepdims=True)
    return RefusalDirection(apart / np.maximum(length, 1e-12), anchors=anchors)


@final
@dataclass(frozen=True)
class LinearProbe(StepDetector):
    """A fitted probe.

    Attributes:
        weights: ``[D]`` of the states as they are.
        bias: of the logit.
        margin: largest absolute logit of a hesitating step, where the score is the number of such
            steps; None where the score is the mean logit.
    """

    weights: NDArray[np.float64]
    bias: float
    margin: float | None = None

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """Mean logit of harm, or the number of hesitating steps; see ``Detector.score``."""
        logits = self.states(traces) @ self.weights + self.bias
        if self.margin is not None:
            return np.asarray((np.abs(logits) < self.margin).sum(axis=1), dtype=np.float32)
        return np.asarray(logits.mean(axis=1), dtype=np.float32)

    def advance(self, state: NDArray[np.float32], step: int, before: float) -> float:
        """See ``StepDetector.advance``."""
        logit = float(vdot(self.weights, state)) + self.bias
        if self.margin is None:
            return _mean(logit, step, before)
        return (before if step > 1 else 0.0) + (abs(logit) < self.margin)


def fit_linear_probe(
    benign: Traces, harmful: Traces, *, anchors: Anchors, margin: float | None = None
) -> LinearProbe:
    """Fit one probe for all steps on traces of both classes; the layer is the anchors'."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    parts = []
    for traces in (benign, harmful):
        states = anchors.states(traces)
        steps = states.shape[1]
        taken = np.unique(np.linspace(0, steps - 1, min(steps, STEPS)).round().astype(int))
        parts.append(states[:, taken].reshape(-1, states.shape[2]).astype(np.float64))
    labels = np.repeat([0, 1], [len(part) for part in parts])
    scaler = StandardScaler().fit(np.concatenate(parts))
    found = LogisticRegression(max_iter=1000, class_weight="balanced").fit(
        scaler.transform(np.concatenate(parts)), labels
    )
    weights = found.coef_[0] / scaler.scale_
    bias = float(found.intercept_[0] - weights @ scaler.mean_)
    return LinearProbe(weights, bias, margin, anchors=anchors)


def _mean(value: float, step: int, before: float) -> float:
    """Mean of ``step`` values, the newest of which is ``value``."""
    return value if step == 1 else before + (value - before) / step
