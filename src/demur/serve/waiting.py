"""The queue: clients take turns, and each one's own requests stay in order."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from time import monotonic
from typing import final

from demur.serve.job import Job


@final
class Waiting:
    """Jobs that have no row yet."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[Job]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, jobs: Iterable[Job]) -> None:
        """Add jobs behind those of the same client."""
        for job in jobs:
            self._clients.setdefault(job.client, deque()).append(job)
            self._count += 1

    def take(self, count: int) -> list[Job]:
        """Up to ``count`` jobs, one client's after another's."""
        taken: list[Job] = []
        while self._clients and len(taken) < count:
            client, own = self._clients.popitem(last=False)
            taken.append(own.popleft())
            if own:
                self._clients[client] = own
        self._count -= len(taken)
        return taken

    def remove(self, leaving: Iterable[Job]) -> None:
        """Drop jobs, wherever they stand."""
        for job in leaving:
            own = self._clients.get(job.client, deque())
            if job in own:
                own.remove(job)
                self._count -= 1
            if not own:
                self._clients.pop(job.client, None)

    def overdue(self, seconds: float) -> list[Job]:
        """Those that arrived longer ago than this."""
        now = monotonic()
        return [job for job in self.all() if now - job.arrived > seconds]

    def all(self) -> list[Job]:
        """Every job that waits."""
        return [job for own in self._clients.values() for job in own]
