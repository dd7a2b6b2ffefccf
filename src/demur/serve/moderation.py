"""The guard over a running batch. It fails closed: what it cannot judge does not pass."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import Tensor

from demur.guard import GuardReading, StreamingGuard
from demur.guard.drift import Drift
from demur.serve.sequence import ServedSequence

_log = logging.getLogger("demur.serve")


@dataclass
class Moderated:
    """A sequence's row in the watcher, its last reading (None after a failure), and whether it is
    flagged; one that could not be judged is flagged too.
    """

    place: int
    reading: GuardReading | None = None
    flagged: bool = False
    failed: bool = False


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
        self._watched: dict[ServedSequence, Moderated] = {}

    @property
    def drift(self) -> float:
        """Evidence against exchangeability (``demur.guard.drift``); traffic like the calibration's
        keeps it near the number of answers or below."""
        return self._drift.value

    def enter(self, sequences: Sequence[ServedSequence]) -> None:
        """Start watching these."""
        if not sequences:
            return
        self._watched |= {sequence: Moderated(self._free.pop()) for sequence in sequences}
        try:
            self._watcher.reset([self._watched[sequence].place for sequence in sequences])
        except Exception:
            self._give_up(sequences)

    def leave(self, sequences: Sequence[ServedSequence]) -> None:
        """Stop watching these."""
        for sequence in sequences:
            if watched := self._watched.pop(sequence, None):
                self._free.append(watched.place)

    def read(self, sequences: Sequence[ServedSequence], phi: Mapping[str, Tensor]) -> None:
        """Read one step of these sequences: layer -> ``[K, D]``."""
        try:
            watched = [self._watched[sequence] for sequence in sequences]
            readings = self._watcher.observe(phi, [each.place for each in watched])
            for each, reading in zip(watched, readings, strict=True):
                if not reading.statistic <= self._threshold:
                    each.flagged = True
                    # inf or NaN means a broken state or guard.
                    each.failed |= not math.isfinite(reading.statistic)
                each.reading = None if each.failed else reading
        except Exception:
            self._give_up(sequences)

    def flags(self, sequence: ServedSequence) -> bool:
        """Whether to hold a sequence back: it is flagged, or cannot be judged."""
        return self._watched[sequence].flagged

    def sigma(self, sequence: ServedSequence) -> float | None:
        """Signal of a sequence's last step; None before the first step, after a failure, and from a
        guard that reads no log-ratio."""
        reading = self._watched[sequence].reading
        return None if reading is None or math.isnan(reading.sigma) else reading.sigma

    def verdict(self, sequence: ServedSequence, *, whole: bool) -> dict[str, Any]:
        """The evidence that a client gets when a sequence ends; call it once per sequence.

        Args:
            sequence: which one.
            whole: whether it was flagged or came to its natural end, and the request could not have
                ended it earlier. Only such sequences compare with the calibration's.
        """
        watched, p_value = self._watched[sequence], None
        try:
            if reading := watched.reading:
                if whole and sequence.calibrated:
                    self._drift.observe(min(reading.statistic, self._above))
                p_value = self._p_values[bisect_left(self._known, reading.statistic)]
        except Exception:
            self._give_up([sequence])
        reading = watched.reading
        return {
            "guard": self.guard.name,
            "alpha": self.guard.alpha,
            "threshold": self._threshold,
            "statistic": reading.statistic if reading else None,
            "p_value": p_value,
            "flagged": watched.flagged,
            "flagged_at_step": reading.flagged_at or None if reading else None,
            "guard_failed": watched.failed,
            "calibrated": sequence.calibrated,
        }

    def _give_up(self, sequences: Sequence[ServedSequence]) -> None:
        _log.exception("The guard failed; %d sequences are filtered", len(sequences))
        for sequence in sequences:
            watched = self._watched[sequence]
            watched.reading, watched.flagged, watched.failed = None, True, True
