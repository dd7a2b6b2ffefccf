"""What a study's cells will cost, from what those in its folder did."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demur.study.cells import Cell, Folder


@dataclass(frozen=True)
class Estimate:
    """What a cell will cost.

    Attributes:
        cell: the cell.
        state: done, failed or waiting.
        seconds: what it took, or what it is expected to take.
        measured: whether cells of its kind and arm were measured in this folder.
    """

    cell: Cell
    state: Literal["done", "failed", "waiting"]
    seconds: float
    measured: bool


def estimate(cells: Sequence[Cell], root: str | Path) -> list[Estimate]:
    """State and cost of each cell, from the rates of all that were done in this folder.

    A rate is of one kind and arm. Cells that a change has made stale count, because their rates hold;
    where none was done, a cell's own ``pace`` stands in.
    """
    folder, rates = Folder(root), _rates(Path(root))
    found = []
    for cell in cells:
        outcome = folder.outcome(cell)
        known = rates.get((cell.kind, cell.arm))
        seconds = outcome.seconds
        if outcome.state != "done":
            seconds = (cell.pace if known is None else known) * cell.units
        found.append(Estimate(cell, outcome.state, seconds, known is not None))
    return found


def _rates(root: Path) -> Mapping[tuple[str, str], float]:
    """Kind and arm -> seconds a unit, of every cell that is done."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    units: defaultdict[tuple[str, str], int] = defaultdict(int)
    for path in root.glob("cells/*/cell.json"):
        try:
            one = json.loads(path.read_text("utf-8"))
            if one["state"] == "done":
                place = one["kind"], one["arm"]
                seconds[place] += one["seconds"]
                units[place] += one["units"]
        except (ValueError, KeyError, TypeError, OSError):
            continue  # another layout's, or damaged: the run says so, an estimate goes without it
    return {place: seconds[place] / max(1, units[place]) for place in seconds}
