"""The log-ratio of the newest step, which the streaming guard reads by default.

Rahimi et al., arXiv:2602.02600, section 3.1, steps 2 and 3: l_t above 0 = complying, below 0 =
refusing. The score is -l_t, so that higher = leaning further to refusal.

Differs from the paper: its guard scores finished generations by an autoencoder's reconstruction
error. One step's log-ratio needs no fit and no later step of the generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isfinite, log, nan, sqrt
from typing import final

import numpy as np
from numpy import vdot
from numpy.typing import NDArray

from demur.detectors.method import StepDetector, require_anchors
from demur.sri import EPS, TAU, unit


@final
@dataclass(frozen=True, kw_only=True)
class LogRatio(StepDetector):
    """Minus the log-ratio of the newest step; there is nothing to fit."""

    reads_log_ratio = True

    @cached_property
    def _directions(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        anchors = require_anchors(self.anchors)
        return list(zip(unit(anchors.harmless), unit(anchors.harmful), strict=True))

    def advance(self, state: NDArray[np.float32], step: int, before: float) -> float:
        """See ``StepDetector.advance``; NaN for a state that is NaN, infinite or beyond float32."""
        harmless, harmful = self._directions[step - 1]
        return -log_ratio_of(state, harmless, harmful)


def log_ratio_of(
    state: NDArray[np.float32], harmless: NDArray[np.float32], harmful: NDArray[np.float32]
) -> float:
    """The log-ratio of one state ``[D]``; the anchors ``[D]`` have length 1.

    Beside a running network, each library call costs more than the arithmetic, because the network
    has pushed everything else out of the processor's caches. So numpy computes the three products
    and Python the rest.
    """
    square = float(vdot(state, state))
    if not isfinite(square):
        return nan
    norm = max(sqrt(square), 1e-12)
    near = max(1 - float(vdot(harmful, state)) / norm, 0.0) + EPS
    far = max(1 - float(vdot(harmless, state)) / norm, 0.0) + EPS
    return log(near / far) / TAU
