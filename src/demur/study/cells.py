"""Cells: the pieces of work of a study, each kept in a folder named by what it depends on.

A cell's key is the hash of its kind, its inputs and the keys of the cells it needs, so a change makes
stale exactly what depends on it. A finished cell is ``cell.json``, written whole or not at all beside
whatever else the work wrote; a process killed anywhere loses the cell it was in, and a run folder
inside loses one batch. A cell that fails leaves its error instead, and those that need it say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, final

from demur.errors import StoreError
from demur.files import write_atomically
from demur.models.base import LanguageModel
from demur.store import Store
from demur.study.locating import Located
from demur.types import Traces, digest

#: Called with a stage's name, what is done of it and how much there is.
Tick = Callable[[str, int, int], None]

Made = TypeVar("Made")

#: Layout of ``cell.json``; cells of another one are stale.
_FORMAT = 2


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
        pace: seconds a unit takes where nothing was measured: built-in models, one core.
        arm: whose traces it is about; cells of one arm are best done by one process.
        about: which arm, set or detector it is of, for the report.
    """

    kind: str
    name: str
    inputs: Mapping[str, Any]
    work: Callable[[Desk], Mapping[str, Any]] = field(repr=False, compare=False)
    needs: tuple[Cell, ...] = ()
    wants: tuple[Cell, ...] = ()
    units: int = 1
    pace: float = 0.002
    arm: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Hash of everything the result depends on."""
        before = [[cell.key for cell in cells] for cells in (self.needs, self.wants)]
        return digest([_FORMAT, self.kind, self.inputs, *before])

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
        made: what it was made with; see ``demur.study.machine``.
        name, kind, arm, units: of the cell.
    """

    state: Literal["done", "failed", "waiting"] = "waiting"
    value: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    missing: Sequence[str] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    kind: str = ""
    arm: str = ""
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
    """What a cell's work has at hand: its folder, the results it asked for, models, progress.

    And a Ray cluster's ``pool``, as ``demur.cluster.trace_to`` takes it, where one is to trace.
    """

    def __init__(
        self,
        folder: Folder,
        advance: Callable[[int], None],
        *,
        pool: Mapping[str, Any] | None = None,
    ) -> None:
        self.pool = pool
        self._folder, self._models = folder, dict[str, LanguageModel]()
        self._traces: dict[str, Traces] = {}
        self._owner = ""
        self._kept: tuple[str, Any] = "", None
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
        """The traces of finished trace cells, in order; those of one arm are kept in memory."""
        if self._owner != self.cell.arm:
            self._owner, self._traces = self.cell.arm, {}
        for cell in cells:
            if cell.key not in self._traces:
                stored = Store.open(self.at(cell) / "run").traces()
                self._traces[cell.key] = Traces(tuple(stored))
        return Traces(tuple(trace for cell in cells for trace in self._traces[cell.key]))

    def keep(self, name: str, make: Callable[[], Made]) -> Made:
        """What is made for several cells, once while they follow each other; the last is kept."""
        if self._kept[0] != name:
            self._kept = name, make()
        made: Made = self._kept[1]
        return made

    def of(self, located: Located) -> LanguageModel:
        """A loaded model of the study."""
        return self.model(located.location, located.options)

    def model(self, location: str, options: Mapping[str, Any]) -> LanguageModel:
        """A model loaded with these options; two are kept at a time."""
        from demur.models import load

        key = f"{location} {sorted(options.items())}"
        if key not in self._models:
            while len(self._models) > 1:
                del self._models[next(iter(self._models))]
            self._models[key] = load(location, **options)
        return self._models[key]
