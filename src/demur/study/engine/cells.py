"""Cells: the pieces of work of a study.

A cell is a frozen dataclass, and everything else follows from its fields:

- its **key** is the hash of its kind, its cache version and its fields, so a change makes exactly those
  cells stale that depend on it;
- fields that are cells, or hold cells, are what it **needs**; those marked ``WANTED`` are used if they
  are done;
- it can be sent to another process as it is.

A cell returns a frozen dataclass, which is kept as JSON and read back as the same type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_type_hints

from pydantic import TypeAdapter

from demur.types import digest

if TYPE_CHECKING:
    from demur.study.engine.workspace import Workspace

#: Called with the name of a stage, the units done and the units in total.
OnProgress = Callable[[str, int, int], None]

Result = TypeVar("Result")

#: Cache version of all cells: bump when the format of keys or of ``cell.json`` changes.
FORMAT = 3

CellState = Literal["done", "failed", "waiting"]


@dataclass(frozen=True)
class Subject:
    """What a cell is about, for the report. Empty where it does not apply.

    Attributes:
        arm: name of the arm.
        set: name of the prompt set.
        detector: name of the detector.
        group: ``detector`` or ``ablation``.
        supervised: whether the detector was fitted on harmful generations too.
        defense: name of the defense.
        search: what the attacker optimises, and the guard.
        white: name of the surrogate model.
    """

    arm: str = ""
    set: str = ""
    detector: str = ""
    group: str = ""
    supervised: bool = False
    defense: str = ""
    search: str = ""
    white: str = ""


#: Metadata of a field that changes no result, so the key leaves it out.
UNKEYED: Mapping[str, Any] = {"inputs": None}
#: Metadata of a field with cells that are used if they are done, and left out otherwise.
WANTED: Mapping[str, Any] = {"wanted": True}


def keyed_by(inputs: Callable[[Any], Any]) -> Mapping[str, Any]:
    """Metadata of a field of which only ``inputs(value)`` goes into the key."""
    return {"inputs": inputs}


@dataclass(frozen=True, kw_only=True)
class Cell(ABC, Generic[Result]):
    """One piece of work."""

    kind: ClassVar[str]
    #: Cache version: bump when results change.
    version: ClassVar[int] = 1

    @property
    def subject(self) -> Subject:
        """What it is about, for the report."""
        return Subject()

    @property
    def name(self) -> str:
        """What it works on, for people."""
        return self.subject.arm

    @property
    def units(self) -> int:
        """Prompts or the like, for cost and progress: those of the traces it reads."""
        read = (*self.needs, *self.wants)
        return sum(cell.units for cell in read if cell.kind == "traces") or 1

    @property
    def pace(self) -> float:
        """Seconds per unit if nothing was measured: built-in models, one core."""
        return 0.002

    @abstractmethod
    def run(self, workspace: Workspace) -> Result:
        """Do the work."""

    @cached_property
    def key(self) -> str:
        """Hash of everything the result depends on."""
        return digest(
            [FORMAT, self.kind, self.version, {f.name: _key(self, f) for f in fields(self)}]
        )

    @property
    def place(self) -> str:
        """Name of its folder."""
        return f"{self.kind}-{self.key}"

    @cached_property
    def needs(self) -> tuple[Cell[Any], ...]:
        """Cells it cannot do without."""
        return tuple(_cells(self, wanted=False))

    @cached_property
    def wants(self) -> tuple[Cell[Any], ...]:
        """Cells it uses if they are done."""
        return tuple(_cells(self, wanted=True))


@dataclass(frozen=True)
class CellOutcome:
    """What became of a cell: the content of ``cell.json``.

    Attributes:
        state: done, failed, or waiting to be done.
        value: the result as plain data; see ``result``.
        error: why it failed.
        seconds: how long it took.
        missing: keys of wanted cells that were not done.
        made: what it was made with; see ``demur.study.engine.provenance``.
        name, kind, arm, units: of the cell.
    """

    state: CellState = "waiting"
    value: Any = None
    error: str = ""
    seconds: float = 0.0
    missing: Sequence[str] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    kind: str = ""
    arm: str = ""
    units: int = 1

    def result(self, kind: type[Cell[Result]]) -> Result:
        """The result of a done cell of this kind.

        Raises:
            ValueError: the data are not such a result.
        """
        result: Hashable = _result_type(kind)
        found: Result = _adapter(result).validate_python(self.value)
        return found


def as_plain(result: Any) -> Any:
    """A result as JSON data."""
    kind: Any = type(result)
    return _adapter(kind).dump_python(result, mode="json")


def inputs_of(value: Any) -> Any:
    """A value as plain data for a key: cells by key, plans by their ``inputs``, the rest as it is."""
    if isinstance(value, Cell):
        return value.key
    if hasattr(value, "inputs"):
        return value.inputs
    if isinstance(value, (list, tuple)):
        return [inputs_of(one) for one in value]
    if isinstance(value, Mapping):
        return {name: inputs_of(one) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: inputs_of(getattr(value, one.name)) for one in fields(value)}
    return value


def _key(cell: Cell[Any], one: Field[Any]) -> Any:
    pick = one.metadata.get("inputs", inputs_of)
    return None if pick is None else pick(getattr(cell, one.name))


def _cells(cell: Cell[Any], *, wanted: bool) -> Iterator[Cell[Any]]:
    for one in fields(cell):
        if one.metadata.get("wanted", False) == wanted:
            yield from _inside(getattr(cell, one.name))


def _inside(value: Any) -> Iterator[Cell[Any]]:
    if isinstance(value, Cell):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from _inside(one)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            yield from _inside(getattr(value, part.name))


@cache
def _result_type(kind: type[Cell[Any]]) -> Any:
    return get_type_hints(kind.run)["return"]


@cache
def _adapter(result: Hashable) -> TypeAdapter[Any]:
    kind: Any = result
    return TypeAdapter(kind)
