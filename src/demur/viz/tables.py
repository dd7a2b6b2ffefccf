"""One table, written as HTML, CSV, LaTeX and plain text."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from demur.errors import InputError
from demur.files import csv_text
from demur.metrics import Estimate
from demur.viz.assets import data_uri, fill

#: What a cell may hold.
Value = str | int | float | Estimate

#: Shown where nothing could be counted.
NOTHING = "–"
#: Shown where too little was counted for a number.
TOO_FEW = "n too small"
#: Shown where no judge gave a verdict.
NOT_JUDGED = "not judged"

#: In tables with more columns, intervals are below their values.
_NARROW = 6

#: LaTeX's special characters -> how they are written.
_ESCAPED = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "“": "``",
    "”": "''",
    "–": "--",
    "…": r"\dots{}",
}


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
        title: what the table shows.
        columns: names, without duplicates.
        rows: one value per column. An ``Estimate`` shows as ``.83 [.78, .88]``.
        note: how to read it, printed below.
        timing: whether it holds times, which vary from run to run.

    Raises:
        InputError: a row of another length than the columns, or a duplicate column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""
    timing: bool = False

    def __post_init__(self) -> None:
        if len(set(self.columns)) < len(self.columns):
            raise InputError(f"Table {self.title!r} has a duplicate column: {list(self.columns)}.")
        for place, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise InputError(
                    f"Row {place} of table {self.title!r} has {len(row)} values for "
                    f"{len(self.columns)} columns. Give one value per column."
                )

    def to_html(self) -> str:
        """The table as an escaped ``figure`` element with a link to its CSV."""
        element = fill(
            "table.html.j2",
            table=self,
            numeric=[self._is_numeric(place) for place in range(len(self.columns))],
            cells=[[_html_cell(value) for value in row] for row in self.rows],
            csv=data_uri(self.to_csv(), media_type="text/csv"),
            file_name=file_name(self.title, "csv"),
            anchor=anchor(self.title),
            wide=len(self.columns) > _NARROW,
        )
        return str(element)

    def to_csv(self) -> str:
        """The table as CSV. An estimate becomes five columns (value, low, high, n, groups)."""
        places = range(len(self.columns))
        wide = [any(isinstance(row[place], Estimate) for row in self.rows) for place in places]
        header = []
        for name, five in zip(self.columns, wide, strict=True):
            parts = ("", " low", " high", " n", " groups") if five else ("",)
            header += [name + part for part in parts]
        lines = []
        for row in self.rows:
            cells = zip(row, wide, strict=True)
            lines.append([cell for one, five in cells for cell in _csv_cells(one, wide=five)])
        return csv_text(header, lines, newline="\n")

    def _is_numeric(self, place: int) -> bool:
        values = [row[place] for row in self.rows]
        counted = any(not isinstance(value, str) for value in values)
        return counted or {*values} <= {NOTHING, TOO_FEW, NOT_JUDGED}


def to_latex(table: Table) -> str:
    """A LaTeX ``table`` for ``booktabs``, with intervals in small print."""
    numeric = [
        any(not isinstance(row[place], str) for row in table.rows)
        for place in range(len(table.columns))
    ]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        f"\\caption{{{escape(table.title)}}}",
        f"\\begin{{tabular}}{{{''.join('r' if one else 'l' for one in numeric)}}}",
        "\\toprule",
        " & ".join(map(escape, table.columns)) + " \\\\",
        "\\midrule",
        *(" & ".join(map(_latex_cell, row)) + " \\\\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
        *([f"\\par\\small {escape(table.note)}"] if table.note else []),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_ESCAPED.get(character, character) for character in text)


def show(value: Value) -> str:
    """A cell as plain text."""
    if isinstance(value, Estimate):
        return f"{number(float(value.value))} {_interval(value)}".rstrip()
    return value if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """A number for readers: no zero before the point, large numbers rounded.

    Two decimals, or as many as needed to differ from 0 and 1.
    """
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if 0 < size < 0.00005:
        return f"{value:.1e}"
    if size >= 100:
        return f"{value:,.0f}" if size >= 1000 else f"{value:.1f}"
    told = (f"{value:.{decimals}f}" for decimals in (2, 3, 4))
    text = next((t for t in told if size in (0, 1) or abs(float(t)) not in (0, 1)), f"{value:.4f}")
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def file_name(title: str, extension: str) -> str:
    """A plain file name for a title. Different titles get different names.

    A title that is more than a few plain words gets a short hash.
    """
    words = re.findall("[A-Za-z0-9]+", title)
    name = "-".join(words).lower()[:60] or "shown"
    if title != " ".join(words).capitalize() or len(title) > 60:
        name += f"-{hashlib.sha256(title.encode('utf-8', 'replace')).hexdigest()[:6]}"
    return f"{name}.{extension}"


def anchor(title: str) -> str:
    """The id of a table or figure on a page, for links."""
    return f"shown-{file_name(title, '')[:-1]}"


def _interval(value: Estimate) -> str:
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return ""
    # A non-breaking space keeps the interval on one line of a narrow terminal.
    return f"[{number(float(value.low))},\u00a0{number(float(value.high))}]"


def _html_cell(value: Value) -> dict[str, str]:
    cell = {"text": "", "interval": "", "goals": "", "about": "", "key": ""}
    if isinstance(value, str):
        return cell | {"text": value, "key": value}
    if isinstance(value, Estimate):
        groups = f" in {value.groups:,} groups" if value.groups != value.n else ""
        cell["interval"] = _interval(value) or " "
        cell["goals"] = f"{value.groups:,} goals" if value.groups else ""
        cell["about"] = f"n = {value.n:,}{groups}"
        value = float(value.value)
    key = repr(float(value)) if math.isfinite(value) else ""
    return cell | {"text": number(value), "key": key}


def _csv_cells(value: Value, *, wide: bool) -> list[str]:
    if isinstance(value, Estimate):
        return [str(x) for x in (value.value, value.low, value.high, value.n, value.groups)]
    return [str(value)] + ([""] * 4 if wide else [])


def _latex_cell(value: Value) -> str:
    if isinstance(value, Estimate):
        shown = _interval(value).replace("\u00a0", " ")
        interval = f" {{\\scriptsize {shown}}}" if shown else ""
        return escape(number(float(value.value))) + interval
    return escape(show(value))
