"""The guard over a running batch, failing closed: what it cannot judge has not passed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from torch import Tensor

from demur.guard.drift import Drift
from demur.serve.job import Job

if TYPE_CHECKING:
    from demur.guard import StreamingGuard

_log = logging.getLogger("demur.serve")


class Opinion(NamedTuple):
    """What the guard says of one answer after a step.

    Attributes:
        sigma: the signal in [0, 1], 1 = complying.
        statistic: running maximum of the score.
        flagged_at: 1-based step at which the statistic passed the threshold; 0 while it has not.
        failed: the guard could not judge; nothing more may leave.
    """

    sigma: float | None = None
    statistic: float | None = None
    flagged_at: int = 0
    failed: bool = False

    @property
    def suspicious(self) -> bool:
        """Whether the answer must be held back."""
        return self.failed or self.flagged_at > 0

    def after(
        self, sigma: float, statistic: float, flagged: bool, step: int, sound: bool
    ) -> Opinion:
        """The opinion after another step; one that is not ``sound``, not a number, is a failure."""
        if self.failed or not sound:
            return Opinion(failed=True)
        return Opinion(sigma, statistic, self.flagged_at or (step if flagged else 0))


@final
class Judge:
    """A guard's watcher, and which of its places each job has.

    Args:
        guard: fitted for the model whose answers are watched.
        rows: most jobs at a time.
    """

    def __init__(self, guard: StreamingGuard, *, rows: int) -> None:
        self.guard = guard
        self._watcher = guard.watcher(rows)
        self._free = list(range(rows))
        self._places: dict[Job, int] = {}
        self._opinions: dict[Job, Opinion] = {}
        known = np.concatenate([group.calibration for group in guard.groups.values()])
        self._drift = Drift(known, generator=np.random.default_rng())

    @property
    def drift(self) -> float:
        """Capital of the bet against exchangeable traffic; 100 or more by chance in 1% of lives."""
        return self._drift.value

    def enter(self, jobs: Sequence[Job]) -> None:
        """Begin to watch these."""
        for job in jobs:
            self._places[job], self._opinions[job] = self._free.pop(), Opinion()
        if jobs:
            try:
                self._watcher.reset(np.array([self._places[job] for job in jobs]))
            except Exception:
                self._give_up(jobs)

    def leave(self, jobs: Sequence[Job]) -> None:
        """Watch these no longer."""
        for job in jobs:
            if job in self._places:
                self._free.append(self._places.pop(job))
                del self._opinions[job]

    def read(self, jobs: Sequence[Job], phi: Mapping[str, Tensor]) -> None:
        """Take in a step of these jobs: layer -> ``[K, D]``."""
        try:
            reading = self._watcher.observe(phi, np.array([self._places[job] for job in jobs]))
            sound = np.isfinite(reading.sigma) & np.isfinite(reading.statistic)
            columns = (reading.sigma, reading.statistic, reading.flagged, reading.step, sound)
            for job, *values in zip(jobs, *(column.tolist() for column in columns), strict=True):
                self._opinions[job] = self._opinions[job].after(*values)
        except Exception:
            self._give_up(jobs)

    def opinion(self, job: Job) -> Opinion:
        """What is known of a job by now."""
        return self._opinions[job]

    def verdict(self, job: Job) -> dict[str, Any]:
        """What a client is told about an answer that is over; called once for each."""
        opinion = self._opinions[job]
        found: dict[str, Any] = {
            "guard": self.guard.name,
            "alpha": self.guard.alpha,
            "threshold": float(self.guard.threshold),
            "statistic": opinion.statistic,
            "p_value": None,
            "flagged": opinion.suspicious,
            "flagged_at_step": opinion.flagged_at or None,
            "guard_failed": opinion.failed,
            "calibrated": job.calibrated,
        }
        if opinion.statistic is not None and not opinion.failed:
            found["p_value"] = float(self.guard.p_value(np.array([opinion.statistic]))[0])
            if job.calibrated:
                self._drift.observe(opinion.statistic)
        return found

    def _give_up(self, jobs: Sequence[Job]) -> None:
        _log.exception("The guard failed; %d answers are filtered", len(jobs))
        for job in jobs:
            self._opinions[job] = Opinion(failed=True)
