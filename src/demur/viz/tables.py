"""One table, written as HTML and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from demur.errors import InputError
from demur.metrics import Estimate
from demur.viz.assets import data_uri, fill

#: What a cell may hold.
Value = str | int | float | Estimate

#: Stands where nothing could be counted.
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
        title: what the table shows.
        columns: names, each once.
        rows: one value a column; an ``Estimate`` shows as ``.83 [.78, .88]``.
        note: how to read it, printed below.

    Raises:
        InputError: a row is not as long as the columns, or a column's name comes twice.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""

    def __post_init__(self) -> None:
        if len(set(self.columns)) < len(self.columns):
            raise InputError(f"Table {self.title!r} names a column twice: {list(self.columns)}.")
        for place, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise InputError(
                    f"Row {place} of table {self.title!r} has {len(row)} values for "
                    f"{len(self.columns)} columns. Give one value a column."
                )

    def to_html(self) -> str:
        """The table as a ``figure`` element, escaped, with its CSV as a link."""
        cells = [[_html_cell(value) for value in row] for row in self.rows]
        element = fill(
            "table.html.j2",
            table=self,
            numeric=[self._is_numeric(place) for place in range(len(self.columns))],
            cells=cells,
            csv=data_uri(self.to_csv(), media_type="text/csv"),
            file_name=file_name(self.title, "csv"),
        )
        return str(element)

    def to_csv(self) -> str:
        """The table as CSV; an estimate becomes five columns (value, low, high, n, groups)."""
        estimated = [
            any(isinstance(row[place], Estimate) for row in self.rows)
            for place in range(len(self.columns))
        ]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        header = []
        for name, wide in zip(self.columns, estimated, strict=True):
            parts = ("", " low", " high", " n", " groups") if wide else ("",)
            header += [name + part for part in parts]
        writer.writerow(header)
        for row in self.rows:
            line: list[str] = []
            for value, wide in zip(row, estimated, strict=True):
                line += _csv_cells(value, wide=wide)
            writer.writerow(line)
        return out.getvalue()

    def _is_numeric(self, place: int) -> bool:
        return any(not isinstance(row[place], str) for row in self.rows)


def show(value: Value) -> str:
    """A cell as plain text."""
    if isinstance(value, Estimate):
        return f"{number(float(value.value))} {_interval(value)}".rstrip()
    return value if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """A number to read: two decimals, no zero before the point, large ones rounded."""
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if 0 < size < 0.005:
        return f"{value:.1e}"
    text = f"{value:,.0f}" if size >= 1000 else f"{value:.1f}" if size >= 100 else f"{value:.2f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def file_name(title: str, extension: str) -> str:
    """A plain file name for a title."""
    kept = "".join(c if c.isascii() and c.isalnum() else " " for c in title).split()
    return f"{'-'.join(kept)[:60].lower() or 'table'}.{extension}"


def _interval(value: Estimate) -> str:
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return ""
    # A space that does not break keeps the interval on one line of a narrow terminal.
    return f"[{number(float(value.low))},\u00a0{number(float(value.high))}]"


def _html_cell(value: Value) -> dict[str, str]:
    if isinstance(value, Estimate):
        groups = f" in {value.groups:,} groups" if value.groups != value.n else ""
        return {
            "text": number(float(value.value)),
            "interval": _interval(value) or " ",
            "about": f"n = {value.n:,}{groups}",
            "key": repr(float(value.value)) if math.isfinite(value.value) else "",
        }
    if isinstance(value, str):
        return {"text": value, "interval": "", "about": "", "key": value}
    key = repr(float(value)) if math.isfinite(value) else ""
    return {"text": number(value), "interval": "", "about": "", "key": key}


def _csv_cells(value: Value, *, wide: bool) -> list[str]:
    if isinstance(value, Estimate):
        return [str(x) for x in (value.value, value.low, value.high, value.n, value.groups)]
    return [str(value)] + ([""] * 4 if wide else [])
