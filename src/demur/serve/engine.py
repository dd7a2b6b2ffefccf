"""One model in one thread: what waits, what runs, and how it all comes to an end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from time import monotonic
from typing import final

import torch

from demur.serve.answering import Answering
from demur.serve.hosted import Hosted
from demur.serve.job import Event, Failed, Job
from demur.serve.waiting import Waiting

_log = logging.getLogger("demur.serve")

#: Seconds that the thread has for the pass it is in, once it was told to stop.
LAST_PASS = 2.0


class BusyError(Exception):
    """The queue is full, or nothing new is taken: come back later."""


@final
class Engine:
    """Generates what is submitted and posts the events to an event loop."""

    def __init__(self, hosted: Hosted) -> None:
        self.model, self.sampler, self.guard = hosted.model, hosted.sampler, hosted.guard
        self.mode, self.uncalibrated = hosted.mode, hosted.uncalibrated
        self._limits, self._metrics = hosted.limits, hosted.metrics
        self._running = Answering(hosted)
        # A job waits, or arrives, or runs, or has been told its end: none is ever in between.
        self._waiting, self._arriving, self._gone = Waiting(), list[Job](), list[Job]()
        self._wake = threading.Condition()
        self._draining, self._stopped, self._dead = False, False, False
        self._thread = threading.Thread(
            target=self._run, name=f"demur-{self.model.name}", daemon=True
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    # ------------------------------------------------------------------ called by the event loop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to generate; events go to this loop."""
        self._loop = loop
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue the answers of one request, all or none.

        Raises:
            BusyError: no place for them, or nobody who would answer them.
        """
        with self._wake:
            full = len(self._waiting) + len(jobs) > self._limits.queue
            if self._draining or self._stopped or full:
                raise BusyError
            self._waiting.put(jobs)
            self._wake.notify()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Nobody listens to these any more: their rows are free at the next step."""
        with self._wake:
            self._gone += jobs
            self._wake.notify()

    @property
    def alive(self) -> bool:
        """Whether the thread runs and takes new work."""
        return self._thread.is_alive() and not self._draining

    @property
    def dead(self) -> bool:
        """Whether the thread ended by a fault; only a new process helps."""
        return self._dead

    async def drain(self, seconds: float) -> None:
        """Take nothing new, finish what runs within ``seconds`` and end the rest as filtered."""
        with self._wake:
            self._draining = True
        until = monotonic() + seconds
        while self._thread.is_alive() and self._busy and monotonic() < until:
            await asyncio.sleep(0.01)
        with self._wake:
            self._stopped = True
            self._wake.notify()
        until = monotonic() + LAST_PASS
        while self._thread.is_alive() and monotonic() < until:
            await asyncio.sleep(0.01)
        if self._thread.is_alive():  # a pass that does not end must not hold the streams open
            with self._wake:
                jobs = [*self._running.jobs, *self._waiting.all()]
            _deliver([(job, Failed("time")) for job in jobs])

    @property
    def _busy(self) -> bool:
        return bool(self._running.jobs or self._waiting)

    # ------------------------------------------------------------------ the thread

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while self._has_work():
                try:
                    self._turn()
                except Exception:
                    self._running.break_off(self._arriving)
                    self._arriving = []
                self._metrics.rows.labels(self.model.name).set(len(self._running.jobs))
                self._metrics.waiting.labels(self.model.name).set(len(self._waiting))
                self._post()
            for job in self._running.jobs:
                self._running.end(job, "content_filter")
        except BaseException:
            _log.exception("The thread of %s ended; nothing is answered", self.model.name)
            self._dead = True
        finally:
            left = [*self._arriving, *self._running.jobs]
            self._running.events += [(job, Failed("model")) for job in left]
            with self._wake:
                self._stopped = True
                waiting = self._waiting.all()
            self._running.events += [(job, Failed("time")) for job in waiting]
            self._post()

    def _has_work(self) -> bool:
        """Wait for something to do; False once the thread is to end."""
        with self._wake:
            while not (self._stopped or self._busy or self._gone):
                self._wake.wait()
            return not self._stopped

    def _turn(self) -> None:
        """One step of everything: who leaves, who joins, what is said."""
        with self._wake:
            gone, self._gone = self._gone, []
            self._waiting.remove(gone)
            late = self._waiting.overdue(self._limits.seconds)
            self._waiting.remove(late)
            self._running.events += [(job, Failed("time")) for job in late]
        self._running.leave(gone, "cancelled")
        with self._wake:
            self._arriving = self._waiting.take(self._running.room)
        self._running.join(self._arriving)
        self._arriving = []
        self._running.step()

    def _post(self) -> None:
        """Hand this turn's events over at once."""
        events = self._running.events
        if events and self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, list(events))
        events.clear()


def _deliver(events: list[tuple[Job, Event]]) -> None:
    for job, event in events:
        job.events.put_nowait((job, event))
