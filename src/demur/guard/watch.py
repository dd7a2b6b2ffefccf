"""Score the steps of generations as they come, one row a generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan, tanh
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from numpy import float32, ndarray
from numpy.typing import NDArray

from demur.detectors import StepDetector
from demur.errors import SignalError
from demur.types import Step

if TYPE_CHECKING:
    from torch import Tensor


class GuardReading(NamedTuple):
    """What a guard knows of one generation after a step.

    Attributes:
        step: number of steps seen.
        ratio: log-ratio of the last step (``demur.sri``); NaN before the first step, for a state
            that gives none, and for detectors that do not read it.
        score: the detector's score so far, in benign spreads from the benign median at this step: 1 =
            as suspicious as one in twenty benign generations; NaN where there is none.
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


@dataclass(frozen=True, kw_only=True)
class Watched(Step):
    """A step that the guard has read.

    Attributes:
        readings: of every row.
        released: number of response tokens of every row that may be shown after this step, counted
            from the first. When the stream ends, the rest of every row that is not flagged may follow.
    """

    readings: Sequence[GuardReading]
    released: Sequence[int]


@final
class Watcher:
    """Scores steps as they come, one row a generation; rows begin and end independently.

    ``StreamingGuard.watcher`` makes one.

    Args:
        detector: gives a generation's score so far.
        middle: ``[T]`` benign median of the score at each step.
        spread: ``[T]`` from there to the benign 95% quantile.
        threshold_of: returns the threshold of a prompt group; None = one that holds for every group.
        rows: number of generations.
    """

    def __init__(
        self,
        detector: StepDetector,
        middle: NDArray[np.float32],
        spread: NDArray[np.float32],
        threshold_of: Callable[[str | None], float],
        *,
        rows: int,
    ) -> None:
        self._advance, self._layer = detector.advance, detector.layer
        self._reads_ratio = detector.reads_log_ratio
        self._width = detector.anchors.harmless.shape[1] if detector.anchors else None
        self._usual = list(zip(middle.tolist(), spread.tolist(), strict=True))
        self._threshold_of, self._thresholds = threshold_of, [threshold_of(None)] * rows
        self._readings, self._values = [GuardReading()] * rows, [nan] * rows

    def reset(self, rows: Sequence[int], *, groups: Sequence[str] | None = None) -> None:
        """Begin a new generation in these rows.

        Args:
            rows: their indices.
            groups: prompt group of each row (see ``fit_streaming_guard``); when None, the threshold
                that holds for every group.

        Raises:
            CalibrationError: a group that the guard was not calibrated for.
        """
        names: Sequence[str | None] = groups or [None] * len(rows)
        for row, name in zip(rows, names, strict=True):
            self._thresholds[row] = self._threshold_of(name)
            self._readings[row], self._values[row] = GuardReading(), nan

    def observe(
        self, phi: Mapping[str, Tensor | NDArray[Any]], rows: Sequence[int]
    ) -> list[GuardReading]:
        """Add one step of these rows and return what is known of each.

        Steps beyond the guard's T are counted and not scored, so that the stated false-positive rate
        holds for generations of any length. A state that is NaN or infinite is flagged.

        Args:
            phi: layer -> ``[B, D]`` pooled states of this step.
            rows: ``[B]`` their indices, without duplicates.

        Raises:
            SignalError: the guard's layer is missing, or states of another width.
        """
        states, found = self._states(phi, len(rows)), []
        for place, row in enumerate(rows):
            self._readings[row] = reading = self._read(row, states[place])
            found.append(reading)
        return found

    @property
    def readings(self) -> list[GuardReading]:
        """What is known of every row."""
        return list(self._readings)

    def _read(self, row: int, state: NDArray[np.float32]) -> GuardReading:
        """A row's reading after a step with this state ``[D]``."""
        step, _, _, statistic, flagged_at = before = self._readings[row]
        if step >= len(self._usual):
            return before._replace(step=step + 1)
        middle, spread = self._usual[step]
        step += 1
        self._values[row] = value = self._advance(state, step, self._values[row])
        score = (value - middle) / spread
        if score > statistic:
            statistic = float(float32(score))  # as StreamingGuard.statistics rounds
        elif isnan(score):
            statistic = inf
        if not flagged_at and statistic > self._thresholds[row]:
            flagged_at = step
        ratio = -value if self._reads_ratio else nan
        return GuardReading(step, ratio, score, statistic, flagged_at)

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
        width = states.shape[-1] if self._width is None else self._width
        if states.shape != (rows, width):
            raise SignalError(
                f"States are {list(states.shape)}; this guard reads [{rows}, {width}] here. "
                "Fit a guard for this model: demur guard fit --streaming."
            )
        return states
