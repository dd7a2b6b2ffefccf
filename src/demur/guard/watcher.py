"""The state of generations being watched: one row each, joining and leaving as they like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from demur.errors import SignalError
from demur.sri import EPS, TAU

if TYPE_CHECKING:
    from torch import Tensor

    from demur.guard.streaming import StreamingGuard

#: Places of rows, or a slice of them.
Rows = NDArray[np.int64] | Sequence[int] | slice


@dataclass(frozen=True)
class Reading:
    """What is known of some rows after a step; every array is ``[B]``.

    Attributes:
        sigma: SRI signal of the last step in [0, 1], 1 = complying; NaN before the first.
        score: score of the last step; 0 = the benign median, 1 = as refusing as one in twenty benign
            generations is at this step.
        statistic: largest score so far, -inf before the first step.
        flagged: whether the statistic is above the row's threshold.
        step: steps seen.
    """

    sigma: NDArray[np.float32]
    score: NDArray[np.float32]
    statistic: NDArray[np.float32]
    flagged: NDArray[np.bool_]
    step: NDArray[np.int64]


@final
class Watcher:
    """Scores steps as they come. Made by ``StreamingGuard.watcher``."""

    def __init__(self, guard: StreamingGuard, rows: int) -> None:
        anchors = guard.anchors
        both = np.stack([anchors.harmless, anchors.harmful], axis=1)
        norm = np.linalg.norm(both, axis=-1, keepdims=True)
        self._guard = guard
        self._directions = (both / np.maximum(norm, 1e-12)).astype(np.float32)
        self._threshold = np.full(rows, guard.threshold)
        self._step = np.zeros(rows, dtype=np.int64)
        self._sigma = np.full(rows, np.nan, dtype=np.float32)
        self._score = np.zeros(rows, dtype=np.float32)
        self._statistic = np.full(rows, -np.inf, dtype=np.float32)

    def reset(self, rows: Rows, *, groups: Sequence[str] | None = None) -> None:
        """Begin a new generation in these rows.

        Args:
            rows: their places.
            groups: the prompt group of each (see ``fit_streaming_guard``); the threshold that holds
                for every group when None.

        Raises:
            CalibrationError: a group that the guard was not calibrated for.
        """
        self._step[rows] = 0
        self._sigma[rows] = np.nan
        self._score[rows] = 0
        self._statistic[rows] = -np.inf
        known = [self._guard.group(name).threshold for name in groups or ()]
        self._threshold[rows] = known or self._guard.threshold

    def observe(self, phi: Mapping[str, Tensor | NDArray[Any]], rows: Rows) -> Reading:
        """Take in one step of these rows.

        Steps beyond the guard's T are counted and not scored, so that the stated false-positive rate
        holds for generations of any length. A state that is NaN or infinite is flagged.

        Args:
            phi: layer -> ``[B, D]`` pooled states of this step.
            rows: ``[B]`` their places, none twice.

        Raises:
            SignalError: the guard's layer is not there, or states of another width.
        """
        states, steps = self._states(phi), self._step[rows]
        known = steps < self._guard.steps
        if not known.all():
            places = np.arange(len(self._step))[rows]
            self._step[places[~known]] += 1
            if known.any():
                self.observe({self._guard.anchors.layer: states[known]}, places[known])
            return self.read(rows)
        # Rows that began together share their directions, which saves copying them.
        place = steps[0] if (steps == steps[0]).all() else steps
        with np.errstate(invalid="ignore", over="ignore"):
            dots = np.vecdot(self._directions[place], states[:, None])
            norm = np.maximum(np.sqrt(np.vecdot(states, states)), np.float32(1e-12))
            distance = np.log(np.maximum(1 - dots / norm[:, None], 0) + EPS)
            ratio = (distance[:, 1] - distance[:, 0]) / TAU
            score = (self._guard.middle[place] - ratio) / self._guard.spread[place]
        score = np.where(np.isfinite(ratio), score, np.inf)
        self._step[rows] = steps + 1
        self._sigma[rows] = 0.5 * (1 + np.tanh(0.5 * ratio))
        self._score[rows] = score
        self._statistic[rows] = np.maximum(self._statistic[rows], score)
        return self.read(rows)

    def read(self, rows: Rows = slice(None)) -> Reading:
        """What is known of these rows, all when not said."""
        # Copies, since a slice would go on changing with the watcher.
        statistic = self._statistic[rows].copy()
        return Reading(
            sigma=self._sigma[rows].copy(),
            score=self._score[rows].copy(),
            statistic=statistic,
            flagged=statistic > self._threshold[rows],
            step=self._step[rows].copy(),
        )

    def _states(self, phi: Mapping[str, Tensor | NDArray[Any]]) -> NDArray[np.float32]:
        layer, width = self._guard.anchors.layer, self._directions.shape[-1]
        if layer not in phi:
            raise SignalError(
                f"This guard reads layer {layer!r}; there are {sorted(phi)}. Record it: "
                f"layers=({layer!r},)."
            )
        value = phi[layer]
        states = value if isinstance(value, np.ndarray) else value.float().cpu().numpy()
        if states.ndim != 2 or states.shape[1] != width:
            raise SignalError(
                f"States are {list(states.shape)}; this guard reads [B, {width}]. Fit a guard for "
                "this model: demur guard fit --streaming."
            )
        return states.astype(np.float32, copy=False)
