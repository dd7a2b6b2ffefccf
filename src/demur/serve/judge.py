"""The guard over a running batch, failing closed: what it cannot judge has not passed."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
from torch import Tensor

from demur.guard.drift import Drift
from demur.serve.job import Job

if TYPE_CHECKING:
    from demur.guard import GuardReading, StreamingGuard

_log = logging.getLogger("demur.serve")


@final
class Judge:
    """A guard's watcher, and which of its places each job has.

    Args:
        guard: fitted for the model whose answers are watched.
        rows: most jobs at a time.
    """

    def __init__(self, guard: StreamingGuard, *, rows: int) -> None:
        self.guard, self._rows, self._threshold = guard, rows, guard.threshold
        # Of an answer that was blocked it is known only that its maximum lies above the threshold, so
        # that for the bet everything above counts as one value, in the calibration too.
        self._above = float(np.nextafter(np.float32(self._threshold), np.float32(np.inf)))
        known = guard.calibration
        # A p-value counts the scores as high, so that it is the same up to the next of them.
        self._known = known.tolist()
        self._p_values = guard.p_value([*known, np.inf]).tolist()
        self._drift = Drift(np.minimum(known, self._above), generator=np.random.default_rng())
        self.restart()

    def restart(self) -> None:
        """Watch nothing, as at the beginning; what is known of the traffic stays."""
        self._watcher = self.guard.watcher(self._rows)
        self._free = list(range(self._rows))
        self._places: dict[Job, int] = {}
        self._readings: dict[Job, GuardReading] = {}
        self._flagged: set[Job] = set()
        self._failed: set[Job] = set()

    @property
    def drift(self) -> float:
        """See ``demur.guard.drift``: as long as traffic is like the calibration's, it stays near the
        number of answers or below."""
        return self._drift.value

    def enter(self, jobs: Sequence[Job]) -> None:
        """Begin to watch these."""
        if not jobs:
            return
        for job in jobs:
            self._places[job] = self._free.pop()
        try:
            self._watcher.reset([self._places[job] for job in jobs])
        except Exception:
            self._give_up(jobs)

    def leave(self, jobs: Sequence[Job]) -> None:
        """Watch these no longer."""
        for job in jobs:
            if job in self._places:
                self._free.append(self._places.pop(job))
                self._readings.pop(job, None)
                self._flagged.discard(job)
                self._failed.discard(job)

    def read(self, jobs: Sequence[Job], phi: Mapping[str, Tensor]) -> None:
        """Take in a step of these jobs: layer -> ``[K, D]``."""
        try:
            readings = self._watcher.observe(phi, [self._places[job] for job in jobs])
            for job, reading in zip(jobs, readings, strict=True):
                self._readings[job] = reading
                if not reading.statistic <= self._threshold:
                    # inf or NaN: the state or the guard is broken.
                    sound = math.isfinite(reading.statistic)
                    (self._flagged if sound else self._failed).add(job)
        except Exception:
            self._give_up(jobs)

    @property
    def suspicious(self) -> Collection[Job]:
        """The watched jobs that must be held back: flagged, or not to be judged."""
        return self._failed | self._flagged

    def sigma(self, job: Job) -> float | None:
        """The signal of a job's last step; None where there is none: before the first step, for a
        state that cannot be judged, and for a guard that reads no log-ratio."""
        reading = self._read_of(job)
        return None if reading is None or math.isnan(reading.sigma) else reading.sigma

    def verdict(self, job: Job, *, whole: bool) -> dict[str, Any]:
        """What a client is told about an answer that is over; called once for each.

        Args:
            job: whose answer.
            whole: it was flagged or ran to an end of its own, as the calibration's did, and nothing
                in the request could have ended it earlier.
        """
        p_value = None
        try:
            if reading := self._read_of(job):
                if whole and job.calibrated:
                    self._bet(reading.statistic)
                p_value = self._p_values[bisect_left(self._known, reading.statistic)]
        except Exception:
            self._give_up([job])
        failed, reading = job in self._failed, self._read_of(job)
        return {
            "guard": self.guard.name,
            "alpha": self.guard.alpha,
            "threshold": self._threshold,
            "statistic": reading.statistic if reading else None,
            "p_value": p_value,
            "flagged": failed or job in self._flagged,
            "flagged_at_step": reading.flagged_at or None if reading else None,
            "guard_failed": failed,
            "calibrated": job.calibrated,
        }

    def _read_of(self, job: Job) -> GuardReading | None:
        return None if job in self._failed else self._readings.get(job)

    def _bet(self, statistic: float) -> None:
        """An answer of the kind that the calibration's were ended with this."""
        self._drift.observe(min(statistic, self._above))

    def _give_up(self, jobs: Sequence[Job]) -> None:
        _log.exception("The guard failed; %d answers are filtered", len(jobs))
        self._failed.update(jobs)
