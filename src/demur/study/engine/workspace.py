"""The folder of a study: cells on disk, what a cell works with, and what cells will cost.

    study.json                      what was run; see demur.study.engine.provenance
    cells/<kind>-<key>/cell.json    state, result or error of a cell
    cells/<kind>-<key>/...          files of its own, such as a run folder of traces

``cell.json`` is written whole or not at all. A killed process loses only the cell it was doing, and of
a run folder one batch, so the same command resumes. A failed cell keeps its error, and cells that need
it repeat the first cause.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

from demur.errors import StoreError
from demur.files import write_atomically
from demur.models.base import LanguageModel
from demur.store import Store
from demur.study.engine.cells import Cell, CellOutcome, CellState, Result
from demur.types import Traces

Made = TypeVar("Made")
SomeCell = TypeVar("SomeCell", bound=Cell[Any])


class Loadable(Protocol):
    """What names a model to load: an arm, or a located model."""

    @property
    def location(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class RayPool:
    """A Ray cluster for tracing; see ``demur.cluster.trace_to``."""

    address: str
    workers: int | None = None


@final
class CellFolder:
    """The cells in one study's folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def path(self, cell: Cell[Any]) -> Path:
        """The cell's own folder."""
        return self.root / "cells" / cell.place

    def outcome(self, cell: Cell[Any]) -> CellOutcome:
        """The outcome of the cell. A result made without a cell that is done now is stale."""
        found = read_outcome(self.path(cell))
        late = [c for c in cell.wants if c.key in found.missing and self.state(c) == "done"]
        return CellOutcome() if late else found

    def state(self, cell: Cell[Any]) -> CellState:
        """Whether the cell is done, failed or waiting."""
        return self.outcome(cell).state

    def write(self, cell: Cell[Any], outcome: CellOutcome) -> None:
        """Write ``cell.json``."""
        text = json.dumps(asdict(outcome), ensure_ascii=False, sort_keys=True)
        write_atomically(self.path(cell) / "cell.json", text.encode("utf-8", "replace"))


def read_outcome(path: Path) -> CellOutcome:
    """The outcome in a cell's folder, waiting if there is none.

    Raises:
        StoreError: ``cell.json`` is damaged.
    """
    try:
        return CellOutcome(**json.loads((path / "cell.json").read_text("utf-8")))
    except FileNotFoundError:
        return CellOutcome()
    except (ValueError, TypeError, OSError) as error:
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}). Remove that folder and run the study again."
        ) from error


@final
class Workspace:
    """What a cell works with: its folder, results of other cells, models and progress.

    Attributes:
        cell: the cell being done.
        advance: call with the number of units just done.
        ray: cluster for tracing, if any.
    """

    def __init__(
        self, folder: CellFolder, advance: Callable[[int], None], *, ray: RayPool | None = None
    ) -> None:
        self.advance, self.ray = advance, ray
        self.cell: Cell[Any]
        self._folder, self._models = folder, dict[str, LanguageModel]()
        self._owner, self._traces = "", dict[str, Traces]()
        self._kept: tuple[str, Any] = "", None

    @property
    def path(self) -> Path:
        """The cell's own folder, created if needed."""
        path = self._folder.path(self.cell)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def result(self, cell: Cell[Result]) -> Result:
        """The result of a needed cell.

        Raises:
            StoreError: its ``cell.json`` is damaged.
        """
        try:
            return self._folder.outcome(cell).result(type(cell))
        except ValueError as error:
            raise StoreError(
                f"{self._folder.path(cell)} is damaged. Remove that folder and run the study again."
            ) from error

    def at(self, cell: Cell[Any]) -> Path:
        """The folder of a needed cell."""
        return self._folder.path(cell)

    def done(self, cells: Iterable[SomeCell]) -> list[SomeCell]:
        """Those of the wanted cells that are done."""
        return [cell for cell in cells if self._folder.state(cell) == "done"]

    def traces(self, *cells: Cell[Any]) -> Traces:
        """The traces of finished trace cells, in order. Those of one arm stay in memory."""
        if self._owner != self.cell.subject.arm:
            self._owner, self._traces = self.cell.subject.arm, {}
        for cell in cells:
            if cell.key not in self._traces:
                stored = Store.open(self.at(cell) / "run").traces()
                self._traces[cell.key] = Traces(tuple(stored))
        return Traces(tuple(trace for cell in cells for trace in self._traces[cell.key]))

    def keep(self, name: str, make: Callable[[], Made]) -> Made:
        """``make()``, computed once for consecutive cells that ask for the same name."""
        if self._kept[0] != name:
            self._kept = name, make()
        made: Made = self._kept[1]
        return made

    def model(self, named: Loadable) -> LanguageModel:
        """The loaded model. The last two stay in memory."""
        from demur.models import load

        key = f"{named.location} {sorted(named.options.items())}"
        if key not in self._models:
            while len(self._models) > 1:
                del self._models[next(iter(self._models))]
            self._models[key] = load(named.location, **named.options)
        return self._models[key]


@dataclass(frozen=True)
class CellCost:
    """What a cell will cost.

    Attributes:
        cell: the cell.
        state: done, failed or waiting.
        seconds: measured if done, else expected.
        measured: whether cells of this kind and arm were measured in this folder.
    """

    cell: Cell[Any]
    state: CellState
    seconds: float
    measured: bool


def costs(cells: Sequence[Cell[Any]], root: str | Path) -> list[CellCost]:
    """CellState and cost of each cell, from the rates of all cells that were done in this folder.

    Rates are by kind and arm. Stale cells count too. Without a rate, the cell's ``pace`` is used.
    """
    folder, rates = CellFolder(root), _rates(Path(root))
    found = []
    for cell in cells:
        outcome = folder.outcome(cell)
        known = rates.get((cell.kind, cell.subject.arm))
        seconds = outcome.seconds
        if outcome.state != "done":
            seconds = (cell.pace if known is None else known) * cell.units
        found.append(CellCost(cell, outcome.state, seconds, known is not None))
    return found


def _rates(root: Path) -> Mapping[tuple[str, str], float]:
    """Kind and arm -> seconds per unit."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    units: defaultdict[tuple[str, str], int] = defaultdict(int)
    for path in root.glob("cells/*"):
        try:
            one = read_outcome(path)
        except StoreError:
            continue  # damaged, or of another version: the run reports it
        if one.state == "done":
            seconds[one.kind, one.arm] += one.seconds
            units[one.kind, one.arm] += one.units
    return {place: seconds[place] / max(1, units[place]) for place in seconds}
