"""The guard over a running batch. It fails closed: what it cannot judge has not passed."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
from torch import Tensor

from demur.guard.drift import Drift
from demur.serve.sequence import ServedSequence

if TYPE_CHECKING:
    from demur.guard import GuardReading, StreamingGuard

_log = logging.getLogger("demur.serve")


@final
class Moderator:
    """A guard's watcher, and the place of each sequence in it.

    Args:
        guard: fitted for the model whose sequences it judges.
        rows: most sequences at a time.
    """

    def __init__(self, guard: StreamingGuard, *, rows: int) -> None:
        self.guard, self._rows, self._threshold = guard, rows, guard.threshold
        # Blocked answers are right-censored at the threshold, so clip both samples there.
        self._above = float(np.nextafter(np.float32(self._threshold), np.float32(np.inf)))
        known = guard.calibration
        # p-values are constant between neighbouring calibration scores: compute each once.
        self._known = known.tolist()
        self._p_values = guard.p_value([*known, np.inf]).tolist()
        self._drift = Drift(np.minimum(known, self._above), generator=np.random.default_rng())
        self.restart()

    def restart(self) -> None:
        """Forget all sequences; keep the drift statistic."""
        self._watcher = self.guard.watcher(self._rows)
        self._free = list(range(self._rows))
        self._places: dict[ServedSequence, int] = {}
        self._readings: dict[ServedSequence, GuardReading] = {}
        self._flagged: set[ServedSequence] = set()
        self._failed: set[ServedSequence] = set()

    @property
    def drift(self) -> float:
        """Evidence against exchangeability (``demur.guard.drift``); traffic like the calibration's
        keeps it near the number of answers or below."""
        return self._drift.value

    def enter(self, sequences: Sequence[ServedSequence]) -> None:
        """Start watching these."""
        if not sequences:
            return
        for sequence in sequences:
            self._places[sequence] = self._free.pop()
        try:
            self._watcher.reset([self._places[sequence] for sequence in sequences])
        except Exception:
            self._give_up(sequences)

    def leave(self, sequences: Sequence[ServedSequence]) -> None:
        """Stop watching these."""
        for sequence in sequences:
            if sequence in self._places:
                self._free.append(self._places.pop(sequence))
                self._readings.pop(sequence, None)
                self._flagged.discard(sequence)
                self._failed.discard(sequence)

    def read(self, sequences: Sequence[ServedSequence], phi: Mapping[str, Tensor]) -> None:
        """Read one step of these sequences: layer -> ``[K, D]``."""
        try:
            readings = self._watcher.observe(
                phi, [self._places[sequence] for sequence in sequences]
            )
            for sequence, reading in zip(sequences, readings, strict=True):
                self._readings[sequence] = reading
                if not reading.statistic <= self._threshold:
                    # inf or NaN means a broken state or guard.
                    sound = math.isfinite(reading.statistic)
                    (self._flagged if sound else self._failed).add(sequence)
        except Exception:
            self._give_up(sequences)

    @property
    def suspicious(self) -> Collection[ServedSequence]:
        """Sequences to hold back: flagged, or not possible to judge."""
        return self._failed | self._flagged

    def sigma(self, sequence: ServedSequence) -> float | None:
        """Signal of a sequence's last step; None before the first step, after a failure, and from a
        guard that reads no log-ratio."""
        reading = self._read_of(sequence)
        return None if reading is None or math.isnan(reading.sigma) else reading.sigma

    def verdict(self, sequence: ServedSequence, *, whole: bool) -> dict[str, Any]:
        """The evidence that a client gets when a sequence ends; call it once per sequence.

        Args:
            sequence: which one.
            whole: whether it was flagged or came to its natural end, and the request could not have
                ended it earlier. Only such sequences compare with the calibration's.
        """
        p_value = None
        try:
            if reading := self._read_of(sequence):
                if whole and sequence.calibrated:
                    self._bet(reading.statistic)
                p_value = self._p_values[bisect_left(self._known, reading.statistic)]
        except Exception:
            self._give_up([sequence])
        failed, reading = sequence in self._failed, self._read_of(sequence)
        return {
            "guard": self.guard.name,
            "alpha": self.guard.alpha,
            "threshold": self._threshold,
            "statistic": reading.statistic if reading else None,
            "p_value": p_value,
            "flagged": failed or sequence in self._flagged,
            "flagged_at_step": reading.flagged_at or None if reading else None,
            "guard_failed": failed,
            "calibrated": sequence.calibrated,
        }

    def _read_of(self, sequence: ServedSequence) -> GuardReading | None:
        return None if sequence in self._failed else self._readings.get(sequence)

    def _bet(self, statistic: float) -> None:
        """Add a statistic to the drift test."""
        self._drift.observe(min(statistic, self._above))

    def _give_up(self, sequences: Sequence[ServedSequence]) -> None:
        _log.exception("The guard failed; %d sequences are filtered", len(sequences))
        self._failed.update(sequences)
