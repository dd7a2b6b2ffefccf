"""Projection onto the refusal direction.

Arditi et al., Refusal in Language Models Is Mediated by a Single Direction, arXiv:2406.11717:

    1. the direction is the difference of mean states of harmful and of harmless prompts, of unit
       length;
    2. the score is a state's projection onto it: higher = closer to what is refused.

Differs from the paper: the means are the anchors', so the harmful side holds refused generations
only, there is one direction a step, and the score is the mean over steps. The layer is the middle
one; the paper searches for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demur.sri import Anchors
from demur.types import Traces


@dataclass(frozen=True)
class RefusalDirection:
    """One direction a step.

    Attributes:
        anchors: they were taken from.
        directions: ``[T, D]`` of unit length.
    """

    anchors: Anchors
    directions: NDArray[np.float32]

    def score(self, traces: Traces) -> NDArray[np.float32]:
        """See ``demur.detectors.Detector``."""
        states = self.anchors.states(traces)
        return np.asarray(np.vecdot(states, self.directions).mean(axis=1), dtype=np.float32)


def fit(anchors: Anchors) -> RefusalDirection:
    """Take the directions from anchors."""
    apart = anchors.harmful - anchors.harmless
    length = np.linalg.norm(apart, axis=1, keepdims=True)
    return RefusalDirection(anchors, apart / np.maximum(length, 1e-12))
