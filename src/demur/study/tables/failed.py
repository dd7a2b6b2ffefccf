"""What failed, in the place where its figures would stand."""

from __future__ import annotations

from dataclasses import replace

from demur.study.results import Results
from demur.viz.tables import NOTHING, Table, Value

#: Characters of an error that fit into a cell; the section on failures has the whole.
_MOST = 120


def with_failed_arms(table: Table, results: Results, *, group: str = "main") -> Table:
    """The table, whose first column names arms, with a row for each arm that failed."""
    groups = {arm["name"]: arm["group"] for arm in results.manifest["arms"]}
    rows: list[tuple[Value, ...]] = [
        (name, short(error), *[NOTHING] * (len(table.columns) - 2))
        for name, error in results.failed_arms().items()
        if groups[name] == group
    ]
    return replace(table, rows=(*table.rows, *rows))


def failures_table(results: Results) -> Table | None:
    """Every cell that failed, with its whole error; None when all went well."""
    rows = [(one.kind, one.name, one.error) for one in results.failures]
    if not rows:
        return None
    return Table("What failed", ("kind", "of", "error"), rows)


def short(error: str) -> str:
    """An error as a cell of a table; without one the work was not done yet."""
    if not error:
        return "not run"
    return f"failed: {error[:_MOST]}{'…' if len(error) > _MOST else ''}"
