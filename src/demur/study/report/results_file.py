"""results.json: every finding, table and figure of a study as plain data.

The schema that ships, ``demur/study/results.schema.json``, is that of ``ResultsFile``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from demur.files import write_atomically
from demur.metrics import Estimate
from demur.study.report.findings import Agreement, Finding
from demur.study.report.results import Results
from demur.viz.report_page import Report
from demur.viz.tables import Table, Value


class ResultsPart(BaseModel):
    """A part of the file: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(ResultsPart):
    """An estimate; null where nothing could be counted."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    goals: int


class TableData(ResultsPart):
    """A table, or the numbers of a figure, row by row."""

    section: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Interval | int | float | str | None, ...], ...]
    note: str


class FindingData(ResultsPart):
    """One statement of the summary."""

    about: str
    text: str
    paper: Agreement
    shown_in: tuple[str, ...]


class Failure(ResultsPart):
    """A cell that failed."""

    kind: str
    of: str
    error: str


class ResultsFile(ResultsPart):
    """The whole file. Runs with the same seeds differ only in ``made`` and ``timings``."""

    format: Literal["demur.study.1"] = "demur.study.1"
    title: str
    note: str
    findings: tuple[FindingData, ...]
    tables: tuple[TableData, ...]
    figures: tuple[TableData, ...]
    failures: tuple[Failure, ...]
    timings: tuple[TableData, ...]
    study: Mapping[str, Any]
    made: Mapping[str, Any]


def results_file(results: Results, found: Sequence[Finding], page: Report) -> ResultsFile:
    """The file's content."""
    manifest = results.manifest
    tables = [(s.title, table) for s in page.sections for table in s.tables]
    figures = [(s.title, figure.data) for s in page.sections for figure in s.figures]
    return ResultsFile(
        title=page.title,
        note=page.note,
        findings=tuple(
            FindingData(about=one.about, text=one.text, paper=one.agreement, shown_in=one.shown_in)
            for one in found
        ),
        tables=tuple(_data(*one) for one in tables if not one[1].timing),
        figures=tuple(_data(*one) for one in figures),
        failures=tuple(Failure(kind=o.kind, of=o.name, error=o.error) for o in results.failures),
        timings=tuple(_data(*one) for one in tables if one[1].timing),
        study=manifest.study.model_dump(mode="json"),
        made={
            "command": manifest.command,
            "seconds": manifest.seconds,
            **manifest.made_with,
        },
    )


def schema() -> dict[str, Any]:
    """The JSON schema of ``results.json``."""
    return ResultsFile.model_json_schema(mode="serialization")


def _data(section: str, table: Table) -> TableData:
    return TableData(
        section=section,
        title=table.title,
        columns=tuple(table.columns),
        rows=tuple(tuple(_plain(value) for value in row) for row in table.rows),
        note=table.note,
    )


def _plain(value: Value) -> Interval | int | float | str | None:
    if isinstance(value, Estimate):
        ends = [_finite(x) for x in (value.value, value.low, value.high)]
        return Interval(value=ends[0], low=ends[1], high=ends[2], n=value.n, goals=value.groups)
    return value if isinstance(value, (str, int)) else _finite(value)


def _finite(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "results.schema.json"
    write_atomically(path, json.dumps(schema(), indent=1).encode() + b"\n")
