"""The state of generations being watched: one row each, joining and leaving as they like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite, isnan, log, nan, sqrt, tanh
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from numpy import ndarray, vdot
from numpy.typing import NDArray

from demur.errors import SignalError
from demur.sri import EPS, TAU, unit

if TYPE_CHECKING:
    from torch import Tensor

    from demur.guard.streaming import StreamingGuard


class Reading(NamedTuple):
    """What is known of one generation after a step.

    Attributes:
        step: steps seen.
        ratio: log-ratio of the last step (``demur.sri``), NaN before the first and where the state
            gives none.
        score: score of the last step; 0 = the benign median, 1 = as refusing as one in twenty benign
            generations is at this step; NaN where the ratio is.
        statistic: largest score so far, -inf before the first step, inf once a score was NaN.
        flagged_at: 1-based step at which the statistic passed the threshold; 0 while it has not.
    """

    step: int = 0
    ratio: float = nan
    score: float = nan
    statistic: float = -inf
    flagged_at: int = 0

    @property
    def sigma(self) -> float:
        """SRI signal of the last step in [0, 1], 1 = complying; NaN where the ratio is."""
        return 0.5 * (1 + tanh(0.5 * self.ratio))

    @property
    def flagged(self) -> bool:
        """Whether the statistic has passed the threshold."""
        return self.flagged_at > 0


@final
class Watcher:
    """Scores steps as they come. Made by ``StreamingGuard.watcher``.

    A network pushes everything else out of the processor's caches, so that beside one each library
    function called costs more than what it computes. Here one function gives a row's products with the
    anchors, and the few numbers left are Python's own.
    """

    def __init__(self, guard: StreamingGuard, rows: int) -> None:
        anchors = guard.anchors
        self._guard, self._layer, self._width = guard, anchors.layer, anchors.harmless.shape[1]
        both = unit(anchors.harmless), unit(anchors.harmful)
        usual = guard.middle.tolist(), guard.spread.tolist()
        self._usual = list(zip(*both, *usual, strict=True))
        self._thresholds = [guard.threshold] * rows
        self._readings = [Reading()] * rows

    def reset(self, rows: Sequence[int], *, groups: Sequence[str] | None = None) -> None:
        """Begin a new generation in these rows.

        Args:
            rows: their places.
            groups: the prompt group of each (see ``fit_streaming_guard``); the threshold that holds
                for every group when None.

        Raises:
            CalibrationError: a group that the guard was not calibrated for.
        """
        own = [self._guard.group(name).threshold for name in groups or ()]
        for place, threshold in zip(rows, own or [self._guard.threshold] * len(rows), strict=True):
            self._readings[place], self._thresholds[place] = Reading(), threshold

    def observe(
        self, phi: Mapping[str, Tensor | NDArray[Any]], rows: Sequence[int]
    ) -> list[Reading]:
        """Take in one step of these rows; gives what is known of each by now.

        Steps beyond the guard's T are counted and not scored, so that the stated false-positive rate
        holds for generations of any length. A state that is NaN or infinite is flagged.

        Args:
            phi: layer -> ``[B, D]`` pooled states of this step.
            rows: ``[B]`` their places, none twice.

        Raises:
            SignalError: the guard's layer is not there, or states of another width.
        """
        states, found = self._states(phi, len(rows)), []
        for row, place in enumerate(rows):
            self._readings[place] = reading = self._read(place, states[row])
            found.append(reading)
        return found

    @property
    def readings(self) -> list[Reading]:
        """What is known of every row."""
        return list(self._readings)

    def _read(self, place: int, state: NDArray[np.float32]) -> Reading:
        """A row after a step with this state ``[D]``."""
        step, _, _, statistic, flagged_at = before = self._readings[place]
        if step >= len(self._usual):
            return before._replace(step=step + 1)
        harmless, harmful, middle, spread = self._usual[step]
        # vdot of real numbers is their product, and alone warns of no overflow.
        square = float(vdot(state, state))
        norm = max(sqrt(square), 1e-12)
        near = max(1 - float(vdot(harmful, state)) / norm, 0.0) + EPS
        far = max(1 - float(vdot(harmless, state)) / norm, 0.0) + EPS
        ratio = log(near / far) / TAU if isfinite(square) else nan
        score = (middle - ratio) / spread
        statistic = max(statistic, inf if isnan(score) else score)
        if not flagged_at and statistic > self._thresholds[place]:
            flagged_at = step + 1
        return Reading(step + 1, ratio, score, statistic, flagged_at)

    def _states(self, phi: Mapping[str, Tensor | NDArray[Any]], rows: int) -> NDArray[np.float32]:
        value = phi.get(self._layer)
        if value is None:
            raise SignalError(
                f"This guard reads layer {self._layer!r}; there are {sorted(phi)}. Record it: "
                f"layers=({self._layer!r},)."
            )
        states = (
            value.astype(np.float32, copy=False)
            if isinstance(value, ndarray)
            else value.float().cpu().numpy()
        )
        if states.shape != (rows, self._width):
            raise SignalError(
                f"States are {list(states.shape)}; this guard reads [{rows}, {self._width}] here. "
                "Fit a guard for this model: demur guard fit --streaming."
            )
        return states
