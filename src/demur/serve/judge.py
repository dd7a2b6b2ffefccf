"""The guard over a running batch, failing closed: what it cannot judge has not passed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
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


@final
class Judge:
    """A guard's watcher, and which of its places each job has.

    Args:
        guard: fitted for the model whose answers are watched.
        rows: most jobs at a time.
    """

    def __init__(self, guard: StreamingGuard, *, rows: int) -> None:
        self.guard, self._rows = guard, rows
        # Of an answer that was blocked it is known only that its maximum lies above the threshold, so
        # that for the bet everything above counts as one value, in the calibration too.
        self._above = float(np.nextafter(np.float32(guard.threshold), np.float32(np.inf)))
        known = np.concatenate([group.calibration for group in guard.groups.values()])
        censored = np.minimum(known, self._above)
        self._drift = Drift(censored, generator=np.random.default_rng())
        self.restart()

    def restart(self) -> None:
        """Watch nothing, as at the beginning; what is known of the traffic stays."""
        self._watcher = self.guard.watcher(self._rows)
        self._free = list(range(self._rows))
        self._places: dict[Job, int] = {}
        self._failed: set[Job] = set()
        self._flagged: dict[Job, int] = {}
        self._sigma = np.full(self._rows, np.nan, dtype=np.float32)
        self._statistic = np.full(self._rows, np.nan, dtype=np.float32)

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
            places = np.array([self._places[job] for job in jobs])
            self._sigma[places] = self._statistic[places] = np.nan
            self._watcher.reset(places)
        except Exception:
            self._give_up(jobs)

    def leave(self, jobs: Sequence[Job]) -> None:
        """Watch these no longer."""
        for job in jobs:
            if job in self._places:
                self._free.append(self._places.pop(job))
                self._failed.discard(job)
                self._flagged.pop(job, None)

    def read(self, jobs: Sequence[Job], phi: Mapping[str, Tensor]) -> None:
        """Take in a step of these jobs: layer -> ``[K, D]``."""
        try:
            places = np.array([self._places[job] for job in jobs])
            reading = self._watcher.observe(phi, places)
            self._sigma[places], self._statistic[places] = reading.sigma, reading.statistic
            unsound = ~np.isfinite(reading.sigma + reading.statistic)
            for row in (unsound | reading.flagged).nonzero()[0].tolist():
                if unsound[row]:
                    self._failed.add(jobs[row])
                else:
                    self._flagged.setdefault(jobs[row], int(reading.step[row]))
        except Exception:
            self._give_up(jobs)

    @property
    def suspicious(self) -> Collection[Job]:
        """The watched jobs that must be held back."""
        return self._failed | self._flagged.keys()

    def opinion(self, job: Job) -> Opinion:
        """What is known of a job by now."""
        if job in self._failed:
            return Opinion(failed=True)
        place = self._places[job]
        if np.isnan(self._statistic[place]):
            return Opinion()
        sigma, statistic = float(self._sigma[place]), float(self._statistic[place])
        return Opinion(sigma, statistic, self._flagged.get(job, 0))

    def verdict(self, job: Job, *, whole: bool) -> dict[str, Any]:
        """What a client is told about an answer that is over; called once for each.

        Args:
            job: whose answer.
            whole: it was flagged or ran to an end of its own, as the calibration's did, and nothing
                in the request could have ended it earlier.
        """
        p_value = None
        try:
            p_value = self._p_value(self.opinion(job), observed=whole and job.calibrated)
        except Exception:
            self._give_up([job])
        opinion = self.opinion(job)
        return {
            "guard": self.guard.name,
            "alpha": self.guard.alpha,
            "threshold": float(self.guard.threshold),
            "statistic": opinion.statistic,
            "p_value": p_value,
            "flagged": opinion.suspicious,
            "flagged_at_step": opinion.flagged_at or None,
            "guard_failed": opinion.failed,
            "calibrated": job.calibrated,
        }

    def _p_value(self, opinion: Opinion, *, observed: bool) -> float | None:
        if opinion.statistic is None:
            return None
        if observed:
            self._drift.observe(min(opinion.statistic, self._above))
        return float(self.guard.p_value(np.array([opinion.statistic]))[0])

    def _give_up(self, jobs: Sequence[Job]) -> None:
        _log.exception("The guard failed; %d answers are filtered", len(jobs))
        self._failed.update(jobs)
