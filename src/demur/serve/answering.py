"""The answers being generated: who runs, what the guard says of it, and what may leave."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic, perf_counter
from typing import final

from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, find_pooling
from demur.serve.answer import Answer, Clocks
from demur.serve.grouped import Grouped
from demur.serve.hosted import Hosted
from demur.serve.job import Event, Failed, Finished, FinishReason, Job, Said, Seen, Started
from demur.serve.judge import Judge
from demur.serve.moment import Moment, Running
from demur.serve.rolling import Rolling
from demur.serve.speech import Speech, remembered

_log = logging.getLogger("demur.serve")


@final
class Answering:
    """A batch, its judge, and the text that is on its way out.

    Attributes:
        events: what is to be told, in order; whoever tells it empties the list.
    """

    def __init__(self, hosted: Hosted) -> None:
        self._hosted, self._model, guard = hosted, hosted.model, hosted.guard
        self._limits, self._metrics = hosted.limits, hosted.metrics
        self._judge = Judge(guard, rows=self._limits.rows) if guard else None
        self._layers = guard.layers if guard else ("last",)
        self._decode = remembered(self._model.decode)
        self._answers: dict[Job, Answer] = {}
        self._clocks = Clocks()
        self.events: list[tuple[Job, Event]] = []
        self._batch = self._new_batch()

    @property
    def jobs(self) -> list[Job]:
        """Whose answers are being generated."""
        return list(self._answers)

    @property
    def room(self) -> int:
        """How many jobs may join now."""
        return self._batch.room

    def join(self, jobs: Sequence[Job]) -> None:
        """Answer these too."""
        for job in jobs:
            speech = Speech(self._decode, stop=job.stop)
            self._answers[job] = Answer(speech, held=self._held(job))
            self.events.append((job, Started()))
        if self._judge:
            self._judge.enter(jobs)
        self._batch.join(jobs)

    def leave(self, jobs: Sequence[Job], outcome: str) -> None:
        """Give up the rows of these, where they have any."""
        jobs = [job for job in jobs if job in self._answers]
        self._batch.leave(jobs)
        if self._judge:
            self._judge.leave(jobs)
        for job in jobs:
            del self._answers[job]
            self._metrics.answers.labels(self._model.name, outcome).inc()

    def step(self) -> None:
        """One step of everything that runs, and what it lets out."""
        begun = perf_counter()
        moments = self._batch.advance()
        seconds = perf_counter() - begun
        before = self._clocks
        self._clocks = before._replace(model=before.model + seconds)
        for moment in moments:
            self._hear(moment, before, seconds / len(moments))
        now = monotonic()
        for job in self.jobs:
            if now - job.arrived > self._limits.seconds:
                self.end(job, "length")

    def end(self, job: Job, reason: FinishReason, *, natural: bool = False) -> None:
        """Say the last of an answer, or withhold it, and give its row to another.

        Args:
            job: whose answer.
            reason: why it ends.
            natural: it was flagged, or came to the end of its own.
        """
        answer = self._answers[job]
        if reason != "content_filter" and (text := answer.rest()):
            self.events.append((job, Said(text)))
        evidence = None
        if self._judge:
            verdict = self._judge.verdict(job, whole=natural and job.whole)
            evidence = {"mode": "audit" if self._audits(job) else self._hosted.mode, **verdict}
            blocked = reason == "content_filter"
            self._metrics.judged(self._model.name, verdict, blocked=blocked)
            self._metrics.drift.labels(self._model.name).set(self._judge.drift)
        self.events.append((job, Finished(reason, answer.count, evidence)))
        if answer.begun and answer.count:
            model, guard = (b - a for a, b in zip(answer.begun, self._clocks, strict=True))
            self._metrics.spent(self._model.name, model / answer.count, guard / answer.count)
        self.leave([job], reason)

    def break_off(self, arriving: Sequence[Job]) -> None:
        """Something failed: every answer is over, none of them passed, and all begins anew.

        Args:
            arriving: jobs that were about to join.
        """
        jobs = dict.fromkeys([*self._answers, *arriving])
        _log.exception("%s failed; %d answers are broken off", self._model.name, len(jobs))
        self.events += [(job, Failed("model")) for job in jobs]
        self._metrics.answers.labels(self._model.name, "failed").inc(len(jobs))
        self._answers.clear()
        self._batch = self._new_batch()
        if self._judge:
            self._judge.restart()

    def _hear(self, moment: Moment, before: Clocks, seconds: float) -> None:
        """Judge a step and let out what passed."""
        begun = perf_counter()
        if self._judge and moment.phi is not None:
            self._judge.read(moment.jobs, moment.phi)
        judging = perf_counter() - begun
        self._clocks = self._clocks._replace(guard=self._clocks.guard + judging)
        self._metrics.stepped(self._model.name, seconds, judging if self._judge else None)
        suspicious = self._judge.suspicious if self._judge else ()
        for place, job in enumerate(moment.jobs):
            answer = self._answers[job]
            if answer.begun is None:
                answer.begun = before
                self._metrics.first.labels(self._model.name).observe(monotonic() - job.arrived)
            answer.add(moment.settled[place])
            if job.watched:
                sigma = self._judge.sigma(job) if self._judge else None
                seen = Seen(*moment.view(place), sigma, job in suspicious)
                self.events.append((job, seen))
            if job in suspicious and not self._audits(job):
                self.end(job, "content_filter", natural=True)
            elif answer.stopped:
                self.end(job, "stop")
            elif moment.ended[place]:
                cut = _is_cut(moment.settled[place], self._model)
                self.end(job, "length" if cut else "stop", natural=True)
            elif text := answer.passed():
                self.events.append((job, Said(text)))

    def _new_batch(self) -> Running:
        rows = self._limits.rows
        if isinstance(self._hosted.sampler, Autoregressive):
            return Rolling(self._model, layers=self._layers, rows=rows)
        pooling = find_pooling(self._hosted.pooling)
        return Grouped(self._model, layers=self._layers, pooling=pooling, rows=rows)

    def _audits(self, job: Job) -> bool:
        """Whether this answer is only marked."""
        return self._hosted.mode == "audit" or (
            self._hosted.uncalibrated == "audit" and not job.calibrated
        )

    def _held(self, job: Job) -> int | None:
        """Tokens that are kept back, None for all of them."""
        if not self._judge or self._audits(job):
            return 0
        return None if self._hosted.mode == "buffer" else self._hosted.hold


def _is_cut(last: Sequence[int], model: LanguageModel) -> bool:
    """Whether an answer ended without a token that ends one."""
    return not last or last[-1] not in model.traits.end_ids
