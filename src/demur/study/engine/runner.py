"""Do cells: one after the other, or several at once in separate processes.

Each cell has one writer. Its result does not depend on where or with which others it was done. A
worker process gets all cells when it starts and then their places in the list; it ends as soon as the
parent process has ended, however that happened.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, final

from demur.errors import DemurError, StoreError
from demur.study.engine.cells import Cell, CellOutcome, OnProgress
from demur.study.engine.provenance import made_with
from demur.study.engine.workspace import CellFolder, RayPool, Workspace

#: Cells in an order in which each one follows those it needs.
Cells = Sequence[Cell[Any]]


def run_cells(
    cells: Cells, folder: CellFolder, *, progress: OnProgress, ray: RayPool | None = None
) -> list[CellOutcome]:
    """Do the cells that are not done, in order.

    Failed cells are tried again. A failure is recorded and the rest continues. Only an interruption, or
    a folder that cannot be written, ends the run.

    Raises:
        StoreError: the folder cannot be written.
    """
    shown = _Progress(cells, progress)
    workspace, outcomes = Workspace(folder, shown.advance, ray=ray), []
    for cell in cells:
        outcome = folder.outcome(cell)
        if outcome.state != "done":
            outcome = _do(cell, folder, workspace)
        outcomes.append(outcome)
        shown.finish(cell)
    return outcomes


def run_in_processes(
    cells: Cells, folder: CellFolder, *, workers: int, progress: OnProgress
) -> list[CellOutcome]:
    """``run_cells`` in this many processes, which share the cores.

    Raises:
        StoreError: the folder cannot be written.
        DemurError: a process was killed. Finished cells are kept.
    """
    shown = _Progress(cells, progress)
    # Two arms may share a cell, which is done once.
    left = {cell.key: place for place, cell in reversed([*enumerate(cells)])}
    left = dict(sorted(left.items(), key=lambda item: item[1]))
    with _started(cells, folder, workers) as crew:
        while left:
            for worker in (w for w in crew if w.place is None):
                while (place := _next(cells, left, crew, worker.arm)) is not None:
                    if folder.state(cells[place]) != "done":
                        worker.give(place, cells[place].subject.arm)
                        break
                    del left[cells[place].key]
                    shown.finish(cells[place])
            for worker in _heard(crew):
                message = worker.receive(cells)
                if isinstance(message, int):
                    shown.advance(message)
                elif message is not None:
                    raise message
                else:
                    assert worker.place is not None
                    del left[cells[worker.place].key]
                    shown.finish(cells[worker.place])
                    worker.place = None
    return [folder.outcome(cell) for cell in cells]


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _next(cells: Cells, left: dict[str, int], crew: Sequence[_Worker], arm: str) -> int | None:
    """A cell that can be done now, preferably of this arm. None if there is none."""
    taken = {worker.place for worker in crew}
    ready = [
        place
        for place in left.values()
        if place not in taken
        and not any(c.key in left for c in (*cells[place].needs, *cells[place].wants))
    ]
    same = (place for place in ready if cells[place].subject.arm == arm)
    return next(same, ready[0] if ready else None)


def _do(cell: Cell[Any], folder: CellFolder, workspace: Workspace) -> CellOutcome:
    """Do a cell and write its outcome."""
    about: dict[str, Any] = {
        "name": cell.name,
        "kind": cell.kind,
        "arm": cell.subject.arm,
        "units": cell.units,
        "made": made_with(),
        "missing": [want.key for want in cell.wants if folder.state(want) != "done"],
    }
    outcome = _outcome(cell, folder, workspace, about)
    folder.write(cell, outcome)
    return outcome


def _outcome(
    cell: Cell[Any], folder: CellFolder, workspace: Workspace, about: dict[str, Any]
) -> CellOutcome:
    for need in cell.needs:
        found = folder.outcome(need)
        if found.state != "done":
            # The first cause, not the chain of cells from there.
            chain = found.error.startswith("needs ")
            through = "" if chain else f"needs {need.kind} of {need.name}, which failed: "
            return CellOutcome("failed", error=through + found.error, **about)
    workspace.cell = cell
    began = time.monotonic()
    try:
        value = cell.results().dump_python(cell.run(workspace), mode="json")
    except StoreError:
        raise
    except Exception as error:
        return CellOutcome("failed", error=f"{type(error).__name__}: {error}", **about)
    return CellOutcome("done", value, seconds=time.monotonic() - began, **about)


@final
class _Progress:
    """Units done: those of finished cells, plus those inside cells in progress."""

    def __init__(self, cells: Cells, report: OnProgress) -> None:
        self._report, self._total = report, sum({c.key: c.units for c in cells}.values())
        self._finished, self._inside = dict[str, int](), 0

    def advance(self, count: int) -> None:
        self._inside += count
        self._show()

    def finish(self, cell: Cell[Any]) -> None:
        self._finished[cell.key] = cell.units
        self._inside = 0
        self._show()

    def _show(self) -> None:
        done = sum(self._finished.values()) + self._inside
        self._report("study", min(done, self._total), self._total)


@dataclass
class _Worker:
    """A process and what it is doing.

    Attributes:
        process: the process.
        pipe: takes a cell's place; gives units done, None for a finished cell, or an error.
        place: place of the cell in progress; None if idle.
        arm: arm of the last cell, whose models and traces are still in memory.
    """

    process: BaseProcess
    pipe: Connection
    place: int | None = None
    arm: str = ""

    def give(self, place: int, arm: str) -> None:
        self.place, self.arm = place, arm
        self.pipe.send(place)

    def receive(self, cells: Cells) -> int | Exception | None:
        try:
            message: int | Exception | None = self.pipe.recv()
        except EOFError:
            self.process.join()
            doing = "before its first cell"
            if self.place is not None:
                doing = f"while it did the cell of {cells[self.place].name}"
            return DemurError(
                f"A process ended (exit code {self.process.exitcode}) {doing}. Finished cells are "
                "kept: run the same command again, with --workers 1 if memory is short."
            )
        return message


@contextmanager
def _started(cells: Cells, folder: CellFolder, workers: int) -> Iterator[list[_Worker]]:
    """Processes that wait for cells. They are killed when the block ends."""
    spawn = multiprocessing.get_context("spawn")
    threads = max(1, cores() // workers)
    crew = []
    try:
        with _threads(threads):
            for _ in range(workers):
                ours, theirs = spawn.Pipe()
                process = spawn.Process(
                    target=_serve, args=(theirs, cells, folder.root, threads), daemon=True
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
    """Processes started inside get this OMP_NUM_THREADS."""
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
    """Busy workers with a message. Waits for one, unless no worker is busy."""
    busy = {worker.pipe: worker for worker in crew if worker.place is not None}
    return [busy[pipe] for pipe in wait([*busy])] if busy else []  # type: ignore[index]


def _serve(pipe: Connection, cells: Cells, root: Any, threads: int) -> None:
    """Main function of a worker process: do the cells whose places come through the pipe."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    folder = CellFolder(root)
    workspace = Workspace(folder, pipe.send)
    while True:
        cell = cells[pipe.recv()]
        try:
            _do(cell, folder, workspace)
        except StoreError as error:
            pipe.send(error)
            return
        pipe.send(None)


def _end_with_parent() -> None:
    """Exit when the parent has ended, so that no cell ever has two writers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
