"""Rows besides the measured ones: the paper's printed numbers, and what failed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from demur.study.engine.cells import CellOutcome
from demur.study.plan.arms import Arm, ArmGroup
from demur.study.report.evidence import Evidence
from demur.study.report.results import Results
from demur.viz.tables import NOTHING, Table, Value

#: Ends the name of every row with numbers of the paper.
MARK = " (paper)"

#: Note under every table with rows of the paper.
NOTE = (
    "Rows marked (paper) are numbers printed in Rahimi et al., arXiv:2602.02600: other models, prompts "
    "and judges, shown for the direction of a finding, not for its size."
)

#: Characters of an error that fit into a cell. The section on failures shows all of it.
_MOST = 120
#: What an error says of needed cells, before the cause.
_NEEDS = re.compile(r"^(needs .*?, which failed: )+")


@cache
def printed(table: str) -> Mapping[str, Any]:
    """One table of ``paper_numbers.yaml``; the file describes the layout."""
    text = files("demur.study.report").joinpath("paper_numbers.yaml").read_text("utf-8")
    found: Mapping[str, Any] = yaml.safe_load(text)[table]
    return found


def attack_name(attack: str) -> str:
    """An attack's name for readers."""
    return {"none": "plain"}.get(attack, attack.replace("_", " "))


def blanks(count: int) -> Sequence[Value]:
    """Cells with nothing in them."""
    return [NOTHING] * count


def with_failed_arms(
    table: Table,
    results: Results,
    *,
    groups: tuple[ArmGroup, ...] = ("main",),
    wanted: Callable[[Arm], bool] = lambda arm: True,
) -> Table:
    """The table, whose first column names arms, with a row for each arm and each set that failed.

    Args:
        table: the table of arms that did not fail.
        results: results of the study.
        groups: groups of arms that the table shows.
        wanted: which of their arms.
    """
    errors = results.failed_arms()
    rows: list[tuple[Value, ...]] = []
    for arm in results.manifest.arms:
        if arm.group not in groups or not wanted(arm):
            continue
        one = results.arm(arm.name)
        failed = {"": errors[arm.name]} if arm.name in errors else {}
        for part, error in (failed_sets(one) if one else failed).items():
            text = f"{part}: {short(error)}" if part else short(error)
            rows.append((arm.name, text, *blanks(len(table.columns) - 2)))
    return replace(table, rows=(*table.rows, *rows))


def failed_sets(one: Evidence) -> dict[str, str]:
    """Test sets of an arm that failed -> why. Detectors have their own table."""
    return {name: error for name, error in one.failed.items() if name.startswith("test ")}


def failed_attack(one: Evidence, attack: str) -> bool:
    """Whether a test set with this attack failed. The names of sets end in their attack."""
    return any(re.split(r"[ /]", name)[-1] == attack for name in failed_sets(one))


def failures_table(results: Results) -> Table | None:
    """Every cause of failure with the cells it stopped. None if nothing failed."""
    causes: dict[str, list[CellOutcome]] = {}
    for one in results.failures:
        causes.setdefault(cause(one.error), []).append(one)
    if not causes:
        return None
    rows = [
        (
            error,
            ", ".join(dict.fromkeys(one.arm for one in cells if one.arm)) or NOTHING,
            len(cells),
            "; ".join(dict.fromkeys(f"{one.kind} {one.name}" for one in cells)),
        )
        for error, cells in causes.items()
    ]
    return Table("What failed", ("cause", "arms", "pieces of work", "which"), rows)


def cause(error: str) -> str:
    """The first error, without the cells it went through."""
    return _NEEDS.sub("", error)


def short(error: str) -> str:
    """An error as a table cell. No error: the cell was not run."""
    if not error:
        return "not run"
    first = cause(error)
    return f"failed: {first[:_MOST]}{'…' if len(first) > _MOST else ''}"
