"""Cells: the pieces of work of a study, each kept in a folder named by what it depends on.

A cell's key is the hash of its kind, its inputs and the keys of the cells it needs, so a change makes
stale exactly what depends on it. A finished cell is ``cell.json``, written whole or not at all beside
whatever else the work wrote; a process killed anywhere loses the cell it was in, and a run folder
inside loses one batch. A cell that fails leaves its error instead, and those that need it say so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, final

from demur.errors import StoreError
from demur.files import write_atomically
from demur.models.base import LanguageModel
from demur.store import Store
from demur.types import Traces, digest

#: Called with a stage's name, what is done of it and how much there is.
Tick = Callable[[str, int, int], None]

#: Seconds a unit of each kind takes where nothing was measured yet: built-in models, two busy cores.
ASSUMED: Mapping[str, float] = {"traces": 0.3, "defense": 1.0, "attack": 2.0, "adaptive": 20.0}
_ASSUMED_ELSE = 0.02


@dataclass(frozen=True)
class Cell:
    """One piece of work.

    Attributes:
        kind: what is done.
        name: what of, for people.
        inputs: plain data that the result depends on, besides the needs.
        work: does it, and returns plain data.
        needs: cells whose results it cannot do without.
        wants: cells whose results it uses when they are there.
        units: prompts or the like, for estimates and progress.
        model: whose rate the estimate takes.
        about: which arm, set or detector it is of, for the report.
    """

    kind: str
    name: str
    inputs: Mapping[str, Any]
    work: Callable[[Desk], Mapping[str, Any]] = field(repr=False, compare=False)
    needs: tuple[Cell, ...] = ()
    wants: tuple[Cell, ...] = ()
    units: int = 1
    model: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Hash of everything the result depends on."""
        before = [[cell.key for cell in cells] for cells in (self.needs, self.wants)]
        return digest([self.kind, self.inputs, *before])

    @property
    def place(self) -> str:
        """Name of its folder."""
        return f"{self.kind}-{self.key}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        state: done, failed, or waiting to be done.
        value: what the work returned.
        error: why it failed.
        seconds: how long it took.
        missing: keys of wanted cells that were not there.
        name, kind, model, units: of the cell.
    """

    state: Literal["done", "failed", "waiting"] = "waiting"
    value: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    missing: Sequence[str] = ()
    name: str = ""
    kind: str = ""
    model: str = ""
    units: int = 1


@final
class Folder:
    """The cells of one study's folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def path(self, cell: Cell) -> Path:
        """The cell's own folder."""
        return self.root / "cells" / cell.place

    def outcome(self, cell: Cell) -> Outcome:
        """What became of the cell; a result made without a cell that is there now is stale."""
        try:
            found = Outcome(**json.loads((self.path(cell) / "cell.json").read_text("utf-8")))
        except FileNotFoundError:
            return Outcome()
        except (ValueError, TypeError, OSError) as error:
            raise StoreError(
                f"{self.path(cell)} is damaged ({type(error).__name__}). Remove that folder and run "
                "the same command again."
            ) from error
        late = [c for c in cell.wants if c.key in found.missing and self.state(c) == "done"]
        return Outcome() if late else found

    def state(self, cell: Cell) -> Literal["done", "failed", "waiting"]:
        """Whether the cell is done, has failed, or waits."""
        return self.outcome(cell).state

    def write(self, cell: Cell, outcome: Outcome) -> None:
        """Keep what became of a cell."""
        text = json.dumps(asdict(outcome), ensure_ascii=False, sort_keys=True)
        write_atomically(self.path(cell) / "cell.json", text.encode("utf-8", "replace"))


@final
class Desk:
    """What a cell's work has at hand: its folder, the results it asked for, models, progress."""

    def __init__(self, folder: Folder, advance: Callable[[int], None]) -> None:
        self._folder, self._models = folder, dict[str, LanguageModel]()
        self._traces: dict[str, Traces] = {}
        self._owner = ""
        self.advance = advance
        self.cell: Cell

    @property
    def path(self) -> Path:
        """The cell's own folder, made."""
        path = self._folder.path(self.cell)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def value(self, cell: Cell) -> Mapping[str, Any]:
        """The result of a needed cell."""
        return self._folder.outcome(cell).value

    def at(self, cell: Cell) -> Path:
        """The folder of a needed cell."""
        return self._folder.path(cell)

    def there(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those of the wanted cells that are done."""
        return [cell for cell in cells if self._folder.state(cell) == "done"]

    def traces(self, *cells: Cell) -> Traces:
        """The traces of finished trace cells, in order; those of one model are kept in memory."""
        if self._owner != self.cell.model:
            self._owner, self._traces = self.cell.model, {}
        for cell in cells:
            if cell.key not in self._traces:
                stored = Store.open(self.at(cell) / "run").traces()
                self._traces[cell.key] = Traces(tuple(stored))
        return Traces(tuple(trace for cell in cells for trace in self._traces[cell.key]))

    def model(self, location: str, *, revision: str | None = None) -> LanguageModel:
        """A loaded model; two are kept at a time."""
        from demur.models import load

        key = f"{location}@{revision}"
        if key not in self._models:
            while len(self._models) > 1:
                del self._models[next(iter(self._models))]
            self._models[key] = load(location, revision=revision)
        return self._models[key]


def run_cells(cells: Sequence[Cell], root: str | Path, *, tick: Tick) -> list[Outcome]:
    """Do what is not done, in the order given, in which every cell follows those it needs.

    Failed cells are tried again. What fails is recorded and the rest goes on; only an interruption
    and a folder that cannot be written end the run.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = Folder(root)
    total = sum(cell.units for cell in cells)
    before, inside = 0, 0

    def advance(count: int) -> None:
        nonlocal inside
        inside += count
        tick("study", min(before + inside, total), total)

    desk, outcomes = Desk(folder, advance), []
    for cell in cells:
        outcome = folder.outcome(cell)
        if outcome.state != "done":
            outcome = _do(cell, folder, desk)
            folder.write(cell, outcome)
        outcomes.append(outcome)
        before, inside = before + cell.units, 0
        tick("study", before, total)
    return outcomes


def _do(cell: Cell, folder: Folder, desk: Desk) -> Outcome:
    about: dict[str, Any] = {
        "name": cell.name,
        "kind": cell.kind,
        "model": cell.model,
        "units": cell.units,
        "missing": [want.key for want in cell.wants if folder.state(want) != "done"],
    }
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


@dataclass(frozen=True)
class Estimate:
    """What a cell will cost.

    Attributes:
        cell: the cell.
        state: done, failed or waiting.
        seconds: what it took, or what it is expected to take.
        measured: whether cells of its kind were measured in this folder.
    """

    cell: Cell
    state: Literal["done", "failed", "waiting"]
    seconds: float
    measured: bool


def estimate(cells: Sequence[Cell], root: str | Path) -> list[Estimate]:
    """State and cost of each cell, from the rates of those that are done in this folder."""
    folder = Folder(root)
    found = [folder.outcome(cell) for cell in cells]
    rates: dict[tuple[str, str], list[float]] = {}
    for one in found:
        if one.state == "done":
            for name in (one.model, ""):
                rates.setdefault((one.kind, name), []).append(one.seconds / max(1, one.units))
    estimates = []
    for cell, one in zip(cells, found, strict=True):
        known = rates.get((cell.kind, cell.model)) or rates.get((cell.kind, ""))
        rate = sum(known) / len(known) if known else ASSUMED.get(cell.kind, _ASSUMED_ELSE)
        seconds = one.seconds if one.state == "done" else rate * cell.units
        estimates.append(Estimate(cell, one.state, seconds, bool(known)))
    return estimates
