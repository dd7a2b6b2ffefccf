"""A table as LaTeX, for ``booktabs``."""

from __future__ import annotations

from demur.metrics import Estimate
from demur.viz.tables import Table, Value, number, show

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


def to_latex(table: Table) -> str:
    """A ``table`` environment; estimates show their interval below them in small print."""
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
        *(" & ".join(map(_cell, row)) + " \\\\" for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
        *([f"\\par\\small {escape(table.note)}"] if table.note else []),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text in which no character is LaTeX's own."""
    return "".join(_ESCAPED.get(character, character) for character in text)


def _cell(value: Value) -> str:
    if isinstance(value, Estimate):
        shown = show(value).removeprefix(number(float(value.value))).strip().replace("\u00a0", " ")
        interval = f" {{\\scriptsize {shown}}}" if shown else ""
        return number(float(value.value)).replace("–", "--") + interval
    return escape(show(value))
