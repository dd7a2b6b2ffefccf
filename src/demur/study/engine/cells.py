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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, get_type_hints

from pydantic import TypeAdapter

from demur.study.plan.arms import Arm
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
    """Names of what a cell is about, for the report. Empty where they do not apply.

    Attributes:
        group: ``detector`` or ``ablation``.
        supervised: whether the detector was fitted on harmful generations too.
        search: what the attacker optimises, and the guard.
        white: the surrogate model.
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
    """Metadata of a field whose ``inputs(value)``, and nothing else, goes into the key."""
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
        one = self.subject
        parts = (one.arm, one.set, one.detector, one.defense, one.search)
        return ", ".join(part for part in parts if part)

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
        values: dict[str, Any] = {}
        for one in fields(self):
            pick = one.metadata.get("inputs", inputs_of)
            values[one.name] = None if pick is None else pick(getattr(self, one.name))
        return digest([FORMAT, self.kind, self.version, values])

    @property
    def place(self) -> str:
        """Name of its folder."""
        return f"{self.kind}-{self.key}"

    @cached_property
    def needs(self) -> tuple[Cell[Any], ...]:
        """Cells it cannot do without."""
        return self._held(wanted=False)

    @cached_property
    def wants(self) -> tuple[Cell[Any], ...]:
        """Cells it uses if they are done."""
        return self._held(wanted=True)

    def _held(self, *, wanted: bool) -> tuple[Cell[Any], ...]:
        held = (f for f in fields(self) if f.metadata.get("wanted", False) == wanted)
        return tuple(cell for one in held for cell in _inside(getattr(self, one.name)))

    @classmethod
    @cache
    def results(cls) -> TypeAdapter[Result]:
        """Converts its results to plain data and back."""
        return TypeAdapter(get_type_hints(cls.run)["return"])


@dataclass(frozen=True, kw_only=True)
class ArmCell(Cell[Result], Generic[Result]):
    """A cell that works on one arm."""

    arm: Arm

    @property
    def subject(self) -> Subject:
        return Subject(arm=self.arm.name)


@dataclass(frozen=True)
class CellOutcome:
    """The outcome of a cell: the content of ``cell.json``.

    Attributes:
        value: the result as plain data; see ``result``.
        missing: keys of wanted cells that were not done.
        made: what it was made with; see ``demur.study.engine.provenance``.
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
        return kind.results().validate_python(self.value)


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


def _inside(value: Any) -> Iterator[Cell[Any]]:
    if isinstance(value, Cell):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from _inside(one)
    elif is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            yield from _inside(getattr(value, part.name))
