"""Run the sequences of one model: step them, judge the steps, and release text that passed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from time import monotonic, perf_counter
from typing import final

from demur.serve.hosted import HostedModel
from demur.serve.moderation import Moderator
from demur.serve.running_batch import BatchOutput, new_batch
from demur.serve.sequence import (
    Detokenizer,
    Event,
    Failed,
    Finished,
    FinishReason,
    OutgoingText,
    ServedSequence,
    Started,
    StepTaken,
    TextReleased,
)
from demur.sri import signal
from demur.thoughts import ThoughtSplitter

_log = logging.getLogger("demur.serve")


@final
class Scheduler:
    """A batch, its moderator, and the text on its way out.

    Attributes:
        events: events to deliver, in order; whoever delivers them clears the list.
    """

    def __init__(self, hosted: HostedModel) -> None:
        self._hosted, self._model, self._metrics = hosted, hosted.model, hosted.metrics
        self._limits = hosted.options.limits
        guard = hosted.guard
        self._moderator = Moderator(guard, rows=self._limits.rows) if guard else None
        # Answers repeat the same pairs of words.
        self._decode = lru_cache(1 << 14)(self._model.decode)
        #: Seconds spent so far in the model and in the guard.
        self._spent = (0.0, 0.0)
        self.events: list[tuple[ServedSequence, Event]] = []
        self._restart()

    @property
    def sequences(self) -> list[ServedSequence]:
        """Sequences being generated."""
        return list(self._texts)

    @property
    def room(self) -> int:
        """How many sequences can join now."""
        return self._batch.room

    def join(self, sequences: Sequence[ServedSequence]) -> None:
        """Generate these too."""
        for sequence in sequences:
            detokenizer = Detokenizer(self._decode, stop=sequence.stop)
            self._texts[sequence] = OutgoingText(detokenizer, held=self._held(sequence))
            if sequence.splits:
                opened = bool(self._model.chat.opening(sequence.prompt))
                self._splitters[sequence] = ThoughtSplitter(opened=opened)
            self.events.append((sequence, Started()))
        if self._moderator:
            self._moderator.enter(sequences)
        self._batch.join(sequences)

    def leave(self, sequences: Sequence[ServedSequence], outcome: str) -> None:
        """Stop those that are being generated."""
        running = [each for each in sequences if each in self._texts]
        self._batch.leave(running)
        if self._moderator:
            self._moderator.leave(running)
        for sequence in running:
            del self._texts[sequence]
            self._splitters.pop(sequence, None)
            self._watched.pop(sequence, None)
            self._metrics.answers.labels(self._model.name, outcome).inc()

    def step(self) -> None:
        """One step of everything that runs, and the text it releases."""
        begun = perf_counter()
        outputs = self._batch.advance()
        seconds = perf_counter() - begun
        before = self._spent
        self._spent = (before[0] + seconds, before[1])
        for output in outputs:
            self._take(output, before, seconds / len(outputs))
        now = monotonic()
        for sequence in self.sequences:
            if now - sequence.arrived > self._limits.seconds:
                self.end(sequence, "length")

    def end(self, sequence: ServedSequence, reason: FinishReason, *, natural: bool = False) -> None:
        """Release the rest of a sequence, or withhold it, and free its row.

        Args:
            sequence: which one.
            reason: why it ends.
            natural: whether it was flagged, or came to its own end.
        """
        text = self._texts[sequence]
        if reason != "content_filter":
            self._release(sequence, text.rest(), last=True)
        evidence = None
        if self._moderator:
            verdict = self._moderator.verdict(sequence, whole=natural and sequence.whole)
            mode = "audit" if self._audits(sequence) else self._hosted.options.mode
            evidence = {"mode": mode, **verdict}
            blocked = reason == "content_filter"
            self._metrics.judged(self._model.name, verdict, blocked=blocked)
            self._metrics.drift.labels(self._model.name).set(self._moderator.drift)
        self.events.append((sequence, Finished(reason, text.count, evidence)))
        if text.begun and text.count:
            model, guard = (b - a for a, b in zip(text.begun, self._spent, strict=True))
            self._metrics.spent(self._model.name, model / text.count, guard / text.count)
        self.leave([sequence], reason)

    def fail(self, arriving: Sequence[ServedSequence]) -> None:
        """Call it in an exception handler: fail all sequences and start again with an empty batch.

        Args:
            arriving: sequences that were about to join.
        """
        sequences = dict.fromkeys([*self._texts, *arriving])
        _log.exception("%s failed; %d sequences fail", self._model.name, len(sequences))
        self.events += [(sequence, Failed("model")) for sequence in sequences]
        self._metrics.answers.labels(self._model.name, "failed").inc(len(sequences))
        self._restart()
        if self._moderator:
            self._moderator.restart()

    def _take(self, output: BatchOutput, before: tuple[float, float], seconds: float) -> None:
        """Judge a step and release what passed."""
        begun = perf_counter()
        if self._moderator and output.phi is not None:
            self._moderator.read(output.sequences, output.phi)
        judging = perf_counter() - begun
        self._spent = (self._spent[0], self._spent[1] + judging)
        self._metrics.stepped(self._model.name, seconds, judging if self._moderator else None)
        for place, sequence in enumerate(output.sequences):
            text = self._texts[sequence]
            if text.begun is None:
                text.begun = before
                waited = monotonic() - sequence.arrived
                self._metrics.first.labels(self._model.name).observe(waited)
            text.add(output.released[place])
            flagged = self._moderator is not None and self._moderator.flags(sequence)
            if sequence.watched:
                sigma = self._sigma(sequence, output, place)
                self.events.append((sequence, StepTaken(*output.view(place), sigma, flagged)))
            if flagged and not self._audits(sequence):
                self.end(sequence, "content_filter", natural=True)
            elif text.stopped:
                self.end(sequence, "stop")
            elif output.ended[place]:
                complete = bool({*output.released[place][-1:]} & {*self._model.traits.end_ids})
                self.end(sequence, "stop" if complete else "length", natural=True)
            else:
                self._release(sequence, text.released())

    def _release(self, sequence: ServedSequence, text: str, *, last: bool = False) -> None:
        """Release text, with thought and answer apart where the sequence asks for that."""
        thought, splitter = "", self._splitters.get(sequence)
        if splitter:
            thought, text = splitter.read(text, last=last)
        if thought or text:
            self.events.append((sequence, TextReleased(text, thought)))

    def _restart(self) -> None:
        """Start with no sequences."""
        hosted, rows = self._hosted, self._limits.rows
        self._texts: dict[ServedSequence, OutgoingText] = {}
        self._splitters: dict[ServedSequence, ThoughtSplitter] = {}
        #: Steps so far of sequences whose signal comes from the anchors.
        self._watched: dict[ServedSequence, int] = {}
        self._batch = new_batch(self._model, hosted.sampler, hosted.record, rows=rows)

    def _audits(self, sequence: ServedSequence) -> bool:
        """Whether this sequence is only marked, never blocked."""
        options = self._hosted.options
        return (
            sequence.audited
            or options.mode == "audit"
            or (options.uncalibrated == "audit" and not sequence.calibrated)
        )

    def _sigma(self, sequence: ServedSequence, output: BatchOutput, place: int) -> float | None:
        """The signal of a sequence's last step: the guard's, else that of the anchors."""
        if self._moderator and (found := self._moderator.sigma(sequence)) is not None:
            return found
        anchors = self._hosted.anchors
        if anchors is None or output.phi is None:
            return None
        step = self._watched[sequence] = self._watched.get(sequence, 0) + 1
        state = output.phi[anchors.layer][place : place + 1].float().cpu().numpy()
        return float(signal(state, anchors.at(step))[0])

    def _held(self, sequence: ServedSequence) -> int | None:
        """Tokens to keep back; None keeps all."""
        if not self._moderator or self._audits(sequence):
            return 0
        options = self._hosted.options
        return None if options.mode == "buffer" else options.hold
