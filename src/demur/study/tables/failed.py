"""What failed, in the place where its figures would stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from demur.study.cells import Outcome
from demur.study.evidence import Evidence
from demur.study.results import Results
from demur.viz.tables import NOTHING, Table, Value

#: Characters of an error that fit into a cell; the section on failures has the whole.
_MOST = 120
#: What a cell says of the cell that it needs, before the cause.
_NEEDS = re.compile(r"^(needs .*?, which failed: )+")


def with_failed_arms(
    table: Table,
    results: Results,
    *,
    groups: Collection[str] = ("main",),
    wanted: Callable[[Mapping[str, Any]], bool] = lambda arm: True,
) -> Table:
    """The table, whose first column names arms, with a row for each arm and each set that failed.

    Args:
        table: of the arms that did not fail.
        results: of the study.
        groups: of the arms that the table shows.
        wanted: which of their entries in the manifest.
    """
    errors = results.failed_arms()
    rows: list[tuple[Value, ...]] = []
    for arm in results.manifest["arms"]:
        name = arm["name"]
        if arm["group"] not in groups or not wanted(arm):
            continue
        one = results.arm(name)
        failed = failed_sets(one) if one else {"": errors[name]} if name in errors else {}
        for part, error in failed.items():
            said = f"{part}: {short(error)}" if part else short(error)
            rows.append((name, said, *[NOTHING] * (len(table.columns) - 2)))
    return replace(table, rows=(*table.rows, *rows))


def failed_sets(one: Evidence) -> dict[str, str]:
    """Test sets of an arm that failed -> why; detectors have a table of their own."""
    return {name: error for name, error in one.failed.items() if name.startswith("test ")}


def failed_attack(one: Evidence, attack: str) -> bool:
    """Whether a test set failed whose name ends in this attack, as sets are named."""
    return any(re.split(r"[ /]", name)[-1] == attack for name in failed_sets(one))


def failures_table(results: Results) -> Table | None:
    """Every cause of a failure, with all that it took along; None when all went well."""
    causes: dict[str, list[Outcome]] = {}
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
    """The error that came first, without the cells that it went through."""
    return _NEEDS.sub("", error)


def short(error: str) -> str:
    """An error as a cell of a table; without one the work was not done yet."""
    if not error:
        return "not run"
    first = cause(error)
    return f"failed: {first[:_MOST]}{'…' if len(first) > _MOST else ''}"
