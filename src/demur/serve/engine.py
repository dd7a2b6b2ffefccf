"""One model in one thread: who runs, what the guard says of it, and what may leave."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, final

import torch

from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, Sampler, find_pooling
from demur.serve.answer import Answer, Mode
from demur.serve.grouped import Grouped
from demur.serve.job import Event, Failed, Finished, FinishReason, Job, Said, Seen, Started
from demur.serve.judge import Judge, Opinion
from demur.serve.limits import Limits
from demur.serve.metrics import Metrics
from demur.serve.moment import Moment, Running
from demur.serve.rolling import Rolling
from demur.serve.speech import Speech
from demur.serve.waiting import Waiting

if TYPE_CHECKING:
    from demur.guard import StreamingGuard

_log = logging.getLogger("demur.serve")


class BusyError(Exception):
    """The queue is full, or the server is on its way down: come back later."""


@final
class Engine:
    """Generates what is submitted and posts the events to an event loop.

    Args:
        model: from ``demur.load``.
        sampler: settings that requests start from (see ``demur.serve.host``).
        pooling: of the states that the guard reads.
        guard: fitted on the same; None leaves everything unguarded.
        mode: see ``demur.serve.answer``.
        hold: tokens kept behind in mode ``hold``.
        limits: rows, queue and time.
        metrics: where figures go.
    """

    def __init__(
        self,
        model: LanguageModel,
        sampler: Sampler,
        *,
        pooling: str,
        guard: StreamingGuard | None,
        mode: Mode,
        hold: int,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self.model, self.sampler, self.guard, self.mode = model, sampler, guard, mode
        self._pooling, self._limits, self._metrics = pooling, limits, metrics
        self._held = None if mode == "buffer" and guard else hold if mode == "hold" and guard else 0
        self._judge = Judge(guard, rows=limits.rows) if guard else None
        self._batch = self._new_batch()
        self._answers: dict[Job, Answer] = {}
        self._waiting, self._gone = Waiting(), list[Job]()
        self._wake = threading.Condition()
        self._draining, self._stopped = False, False
        self._posted: list[tuple[Job, Event]] = []
        self._thread = threading.Thread(target=self._run, name=f"demur-{model.name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # ------------------------------------------------------------------ called by the event loop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to generate; events go to this loop."""
        self._loop = loop
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue the answers of one request, all or none.

        Raises:
            BusyError: no place for them.
        """
        with self._wake:
            if self._draining or len(self._waiting) + len(jobs) > self._limits.queue:
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

    async def drain(self, seconds: float) -> None:
        """Take nothing new, finish what runs within ``seconds`` and end the rest as filtered."""
        with self._wake:
            self._draining = True
        until = monotonic() + seconds
        while (self._answers or self._waiting) and monotonic() < until:
            await asyncio.sleep(0.01)
        with self._wake:
            self._stopped = True
            self._wake.notify()
        while self._thread.is_alive():
            await asyncio.sleep(0.01)

    # ------------------------------------------------------------------ the thread

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._stopped or self._answers or self._waiting or self._gone):
                    self._wake.wait()
                if self._stopped:
                    break
                gone, self._gone = self._gone, []
                self._waiting.remove(gone)
                late = self._overdue(self._waiting.all())
                self._waiting.remove(late)
                arriving = self._waiting.take(self._batch.room)
            self._turn(gone, arriving, late)
        for job in list(self._answers):
            self._end(job, "content_filter")
        for job in self._waiting.all():
            self._posted.append((job, Failed("time")))
        self._post()

    def _turn(self, gone: list[Job], arriving: list[Job], late: list[Job]) -> None:
        """One step of everything: who leaves, who joins, what is said."""
        self._drop([job for job in gone if job in self._answers], "cancelled")
        for job in late:
            self._posted.append((job, Failed("time")))
        self._join(arriving)
        begun = perf_counter()
        try:
            moments = self._batch.advance()
            seconds = perf_counter() - begun
            for moment in moments:
                self._hear(moment, seconds / len(moments))
        except Exception:
            self._break_off()
        for job in self._overdue(list(self._answers)):
            self._end(job, "length")
        self._post()
        self._metrics.waiting.labels(self.model.name).set(len(self._waiting))
        self._metrics.rows.labels(self.model.name).set(len(self._answers))
        if self._judge:
            self._metrics.drift.labels(self.model.name).set(self._judge.drift)

    def _join(self, jobs: list[Job]) -> None:
        for job in jobs:
            speech = Speech(self.model.decode, stop=job.stop)
            self._answers[job] = Answer(speech, held=self._held)
            self._posted.append((job, Started()))
        if self._judge:
            self._judge.enter(jobs)
        self._batch.join(jobs)

    def _hear(self, moment: Moment, seconds: float) -> None:
        """Judge a step and let out what passed."""
        begun = perf_counter()
        if self._judge and moment.phi is not None:
            self._judge.read(moment.jobs, moment.phi)
        judging = perf_counter() - begun
        self._time(moment, seconds, judging)
        for place, job in enumerate(moment.jobs):
            answer, opinion = self._answers[job], self._opinion(job)
            fresh = not answer.count
            answer.add(moment.settled[place])
            if fresh and moment.phi is not None:
                self._metrics.first.labels(self.model.name).observe(monotonic() - job.arrived)
            if job.watched:
                tokens, draft = moment.view(place)
                seen = Seen(tokens, draft, opinion.sigma, opinion.suspicious)
                self._posted.append((job, seen))
            if opinion.suspicious and self.mode != "audit":
                self._end(job, "content_filter")
            elif answer.stopped or moment.ended[place]:
                ended = answer.stopped or not _is_cut(moment.settled[place], self.model)
                self._end(job, "stop" if ended else "length")
            elif text := answer.passed():
                self._posted.append((job, Said(text)))

    def _end(self, job: Job, reason: FinishReason) -> None:
        """Say the last of an answer, or withhold it, and give its row to another."""
        answer, opinion = self._answers[job], self._opinion(job)
        if reason != "content_filter" and (text := answer.rest()):
            self._posted.append((job, Said(text)))
        evidence = None
        if self._judge:
            evidence = {"mode": self.mode, **self._judge.verdict(job)}
            self._count(evidence, opinion, blocked=reason == "content_filter")
        self._posted.append((job, Finished(reason, answer.count, evidence)))
        self._drop([job], reason)

    def _drop(self, jobs: Sequence[Job], outcome: str) -> None:
        self._batch.leave(jobs)
        if self._judge:
            self._judge.leave(jobs)
        for job in jobs:
            del self._answers[job]
            self._metrics.answers.labels(self.model.name, outcome).inc()

    def _break_off(self) -> None:
        """The model failed: every answer it was at is over, and none of them passed."""
        _log.exception("The model failed; %d answers are broken off", len(self._answers))
        jobs = list(self._answers)
        self._posted += [(job, Failed("model")) for job in jobs]
        self._drop(jobs, "failed")
        self._batch = self._new_batch()

    # ------------------------------------------------------------------ small things

    def _new_batch(self) -> Running:
        layers = (self.guard.anchors.layer,) if self.guard else ("last",)
        rows = self._limits.rows
        if isinstance(self.sampler, Autoregressive):
            return Rolling(self.model, layers=layers, rows=rows)
        pooling = find_pooling(self._pooling)
        return Grouped(self.model, layers=layers, pooling=pooling, rows=rows)

    def _opinion(self, job: Job) -> Opinion:
        return self._judge.opinion(job) if self._judge else Opinion()

    def _overdue(self, jobs: Sequence[Job]) -> list[Job]:
        now = monotonic()
        return [job for job in jobs if now - job.arrived > self._limits.seconds]

    def _post(self) -> None:
        """Hand this turn's events over at once."""
        posted, self._posted = self._posted, []
        if posted and self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, posted)

    def _time(self, moment: Moment, seconds: float, judging: float) -> None:
        name, tokens = self.model.name, sum(map(len, moment.settled))
        self._metrics.step.labels(name, "model").observe(seconds)
        if self._judge:
            self._metrics.step.labels(name, "guard").observe(judging)
        if tokens:
            self._metrics.token.labels(name, "without").observe(seconds / tokens)
            self._metrics.token.labels(name, "with").observe((seconds + judging) / tokens)

    def _count(self, evidence: dict[str, object], opinion: Opinion, *, blocked: bool) -> None:
        name = self.model.name
        if opinion.suspicious:
            self._metrics.flags.labels(name).inc()
        if blocked and opinion.suspicious:
            self._metrics.blocks.labels(name, "error" if opinion.failed else "score").inc()
        if (p_value := evidence["p_value"]) is not None:
            assert isinstance(p_value, float)
            self._metrics.p_values.labels(name).observe(p_value)


def _deliver(posted: list[tuple[Job, Event]]) -> None:
    for job, event in posted:
        job.events.put_nowait((job, event))


def _is_cut(last: Sequence[int], model: LanguageModel) -> bool:
    """Whether an answer ended without a token that ends one."""
    return not last or last[-1] not in model.traits.end_ids
