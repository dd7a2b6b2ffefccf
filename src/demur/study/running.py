"""Do cells: one after the other here, or several at once in processes of their own.

Every cell has one writer, and its result does not depend on where or beside what it was done. A
process of its own rebuilds the cells, because their work cannot be sent to it, and ends at once when
the one that started it does, however that ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, final

from demur.errors import DemurError, StoreError
from demur.study.cells import Cell, Desk, Folder, Outcome, Tick
from demur.study.machine import made_with

#: Makes the same cells anywhere; can be sent to another process.
Make = Callable[[], Sequence[Cell]]


def run_cells(
    cells: Sequence[Cell], folder: Folder, *, tick: Tick, pool: Mapping[str, Any] | None = None
) -> list[Outcome]:
    """Do what is not done, in the order given, in which every cell follows those it needs.

    Failed cells are tried again. What fails is recorded and the rest goes on; only an interruption
    and a folder that cannot be written end the run.

    Raises:
        StoreError: the folder cannot be written.
    """
    progress = _Progress(cells, tick)
    desk, outcomes = Desk(folder, progress.advance, pool=pool), []
    for cell in cells:
        outcome = folder.outcome(cell)
        if outcome.state != "done":
            outcome = _do(cell, folder, desk)
        outcomes.append(outcome)
        progress.finish(cell)
    return outcomes


def run_cells_at_once(make: Make, folder: Folder, *, workers: int, tick: Tick) -> list[Outcome]:
    """The same in this many processes, each with its share of the cores as threads.

    Raises:
        StoreError: the folder cannot be written.
        DemurError: a process was killed; what is done is kept.
    """
    cells = make()
    progress = _Progress(cells, tick)
    # Two arms may share a cell, which is done once.
    left = {cell.key: place for place, cell in reversed([*enumerate(cells)])}
    left = dict(sorted(left.items(), key=lambda item: item[1]))
    with _started(make, folder, workers) as crew:
        while left:
            for worker in (w for w in crew if w.place is None):
                while (place := _next(cells, left, crew, worker.arm)) is not None:
                    if folder.state(cells[place]) != "done":
                        worker.give(place, cells[place].arm)
                        break
                    del left[cells[place].key]
                    progress.finish(cells[place])
            for worker in _heard(crew):
                said = worker.hear(cells)
                if isinstance(said, int):
                    progress.advance(said)
                elif said is not None:
                    raise said
                else:
                    assert worker.place is not None
                    del left[cells[worker.place].key]
                    progress.finish(cells[worker.place])
                    worker.place = None
    return [folder.outcome(cell) for cell in cells]


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _next(
    cells: Sequence[Cell], left: dict[str, int], crew: Sequence[_Worker], arm: str
) -> int | None:
    """A cell that waits for nothing, of this arm if there is one; None while there is none."""
    taken = {worker.place for worker in crew}
    ready = [
        place
        for place in left.values()
        if place not in taken
        and not any(c.key in left for c in (*cells[place].needs, *cells[place].wants))
    ]
    return next((place for place in ready if cells[place].arm == arm), ready[0] if ready else None)


def _do(cell: Cell, folder: Folder, desk: Desk) -> Outcome:
    """Do a cell and write what became of it."""
    about: dict[str, Any] = {
        "name": cell.name,
        "kind": cell.kind,
        "arm": cell.arm,
        "units": cell.units,
        "made": made_with(),
        "missing": [want.key for want in cell.wants if folder.state(want) != "done"],
    }
    outcome = _outcome(cell, folder, desk, about)
    folder.write(cell, outcome)
    return outcome


def _outcome(cell: Cell, folder: Folder, desk: Desk, about: dict[str, Any]) -> Outcome:
    for need in cell.needs:
        found = folder.outcome(need)
        if found.state != "done":
            return Outcome("failed", error=_because(need, found), **about)
    desk.cell = cell
    began = time.monotonic()
    try:
        value = cell.work(desk)
    except StoreError:
        raise
    except Exception as error:
        return Outcome("failed", error=f"{type(error).__name__}: {error}", **about)
    return Outcome("done", value, seconds=time.monotonic() - began, **about)


def _because(need: Cell, found: Outcome) -> str:
    """The first cause, not the chain that leads to it."""
    if found.error.startswith("needs "):
        return found.error
    return f"needs {need.kind} of {need.name}, which failed: {found.error}"


@final
class _Progress:
    """Units done: those of finished cells, and those inside of cells that are being done."""

    def __init__(self, cells: Sequence[Cell], tick: Tick) -> None:
        self._tick, self._total = tick, sum({cell.key: cell.units for cell in cells}.values())
        self._finished, self._inside = dict[str, int](), 0

    def advance(self, count: int) -> None:
        self._inside += count
        self._show()

    def finish(self, cell: Cell) -> None:
        self._finished[cell.key] = cell.units
        self._inside = 0
        self._show()

    def _show(self) -> None:
        done = sum(self._finished.values()) + self._inside
        self._tick("study", min(done, self._total), self._total)


# ---------------------------------------------------------------------- processes


@dataclass
class _Worker:
    """A process and what it is doing.

    Attributes:
        process: the process.
        pipe: takes a cell's place, and gives units done, None for a finished cell, or an error.
        place: of the cell it does; None while it waits.
        arm: of the last cell, whose models and traces it still holds.
    """

    process: BaseProcess
    pipe: Connection
    place: int | None = None
    arm: str = ""

    def give(self, place: int, arm: str) -> None:
        self.place, self.arm = place, arm
        self.pipe.send(place)

    def hear(self, cells: Sequence[Cell]) -> int | Exception | None:
        try:
            said: int | Exception | None = self.pipe.recv()
        except EOFError:
            self.process.join()
            doing = "it started" if self.place is None else f"of {cells[self.place].name}"
            return DemurError(
                f"A process ended (exit code {self.process.exitcode}) while it did the cell {doing}. "
                "What is done is kept: run the same command again, with --workers 1 if memory is "
                "short."
            )
        return said


@contextmanager
def _started(make: Make, folder: Folder, workers: int) -> Iterator[list[_Worker]]:
    """Processes that wait for cells, and are gone when the block ends."""
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, cores() // workers)
    crew = []
    try:
        with _threads(threads):
            for _ in range(workers):
                ours, theirs = spawn.Pipe()
                process = spawn.Process(
                    target=_serve, args=(theirs, make, folder.root, threads), daemon=True
                )
                process.start()
                theirs.close()
                crew.append(_Worker(process, ours))
        yield crew
    finally:
        for worker in crew:
            worker.process.kill()
        for worker in crew:
            worker.process.join()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes started inside find this many threads in their environment."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _heard(crew: Sequence[_Worker]) -> list[_Worker]:
    """Workers that have said something; at once where none is at work."""
    busy = {worker.pipe: worker for worker in crew if worker.place is not None}
    return [busy[pipe] for pipe in wait([*busy])] if busy else []  # type: ignore[index]


def _serve(pipe: Connection, make: Make, root: Any, threads: int) -> None:
    """A process of its own: do the cells whose places come through the pipe."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    cells, folder = make(), Folder(root)
    desk = Desk(folder, pipe.send)
    while True:
        cell = cells[pipe.recv()]
        try:
            _do(cell, folder, desk)
        except StoreError as error:
            pipe.send(error)
            return
        pipe.send(None)


def _end_with_parent() -> None:
    """End at once when the parent has ended, so that no cell ever has two writers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
