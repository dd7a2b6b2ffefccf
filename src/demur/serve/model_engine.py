"""One model in one thread: its queue, its scheduler, and a clean shutdown."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import final

import torch

from demur.serve.hosted import HostedModel
from demur.serve.http_errors import BUSY, HTTPError
from demur.serve.scheduler import Scheduler
from demur.serve.sequence import Event, Failed, ServedSequence

_log = logging.getLogger("demur.serve")

#: Seconds for the thread to finish its forward pass after a request to stop.
LAST_PASS = 2.0


@final
class RequestQueue:
    """Sequences without a row. Clients take turns, and each client's own stay in order."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[ServedSequence]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def put(self, sequences: Iterable[ServedSequence]) -> None:
        """Add sequences behind those of the same client."""
        for sequence in sequences:
            self._clients.setdefault(sequence.client, deque()).append(sequence)

    def take(self, count: int) -> list[ServedSequence]:
        """Take up to ``count`` sequences, one client after another."""
        taken: list[ServedSequence] = []
        while self._clients and len(taken) < count:
            client, own = self._clients.popitem(last=False)
            taken.append(own.popleft())
            if own:
                self._clients[client] = own
        return taken

    def remove(self, leaving: Iterable[ServedSequence]) -> None:
        """Remove sequences."""
        for sequence in leaving:
            own = self._clients.get(sequence.client, deque())
            if sequence in own:
                own.remove(sequence)
            if not own:
                self._clients.pop(sequence.client, None)

    def all(self) -> list[ServedSequence]:
        """All waiting sequences."""
        return [sequence for own in self._clients.values() for sequence in own]


@final
class ModelEngine:
    """Generates what is submitted and posts the events to an event loop.

    Attributes:
        hosted: the model, its guard and how it is served.
        dead: whether the thread ended with an error; only a new process helps.
    """

    def __init__(self, hosted: HostedModel) -> None:
        self.hosted, self._name = hosted, hosted.model.name
        self._limits, self._metrics = hosted.options.limits, hosted.metrics
        self._running = Scheduler(hosted)
        # A sequence waits, arrives, runs, or has had its last event: it is never in between.
        self._waiting, self._arriving = RequestQueue(), list[ServedSequence]()
        self._gone = list[ServedSequence]()
        self._wake = threading.Condition()
        self._draining, self._stopped, self.dead = False, False, False
        self._thread = threading.Thread(target=self._run, name=f"demur-{self._name}", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # ------------------------------------------------------------------ called by the event loop

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to generate; events go to this loop."""
        self._loop = loop
        self._thread.start()

    def submit(self, sequences: Sequence[ServedSequence]) -> None:
        """Queue the sequences of one request, all or none.

        Raises:
            HTTPError: the queue is full, or the engine is stopping (429).
        """
        with self._wake:
            full = len(self._waiting) + len(sequences) > self._limits.queue
            if self._draining or self._stopped or full:
                raise HTTPError(*BUSY)
            self._waiting.put(sequences)
            self._wake.notify()

    def cancel(self, sequences: Sequence[ServedSequence]) -> None:
        """Stop these sequences; their rows are free at the next step."""
        with self._wake:
            self._gone += sequences
            self._wake.notify()

    @property
    def alive(self) -> bool:
        """Whether the thread runs and accepts work."""
        return self._thread.is_alive() and not self._draining

    async def drain(self, seconds: float) -> None:
        """Accept no new work; finish sequences within ``seconds`` and end the rest as filtered."""
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
        if self._thread.is_alive():  # a pass that does not end must not keep streams open
            with self._wake:
                left = [*self._running.sequences, *self._waiting.all()]
            _deliver([(sequence, Failed("time")) for sequence in left])

    @property
    def _busy(self) -> bool:
        return bool(self._running.sequences or self._waiting)

    # ------------------------------------------------------------------ the thread

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while self._has_work():
                try:
                    self._turn()
                except Exception:
                    self._running.fail(self._arriving)
                    self._arriving = []
                self._metrics.rows.labels(self._name).set(len(self._running.sequences))
                self._metrics.waiting.labels(self._name).set(len(self._waiting))
                self._post()
            for sequence in self._running.sequences:
                self._running.end(sequence, "content_filter")
        except BaseException:
            _log.exception("The thread of %s ended; its requests fail", self._name)
            self.dead = True
        finally:
            left = [*self._arriving, *self._running.sequences]
            self._running.events += [(sequence, Failed("model")) for sequence in left]
            with self._wake:
                self._stopped = True
                waiting = self._waiting.all()
            self._running.events += [(sequence, Failed("time")) for sequence in waiting]
            self._post()

    def _has_work(self) -> bool:
        """Wait for work; False when the thread must end."""
        with self._wake:
            while not (self._stopped or self._busy or self._gone):
                self._wake.wait()
            return not self._stopped

    def _turn(self) -> None:
        """Remove sequences that left, add waiting ones, and run one step."""
        with self._wake:
            gone, self._gone = self._gone, []
            self._waiting.remove(gone)
            oldest = monotonic() - self._limits.seconds
            late = [each for each in self._waiting.all() if each.arrived < oldest]
            self._waiting.remove(late)
            self._running.events += [(sequence, Failed("time")) for sequence in late]
        self._running.leave(gone, "cancelled")
        with self._wake:
            self._arriving = self._waiting.take(self._running.room)
        self._running.join(self._arriving)
        self._arriving = []
        self._running.step()

    def _post(self) -> None:
        """Post this turn's events together."""
        events = self._running.events
        if events and self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, list(events))
        events.clear()


def _deliver(events: list[tuple[ServedSequence, Event]]) -> None:
    for sequence, event in events:
        sequence.events.put_nowait((sequence, event))
