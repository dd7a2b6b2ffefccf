"""The README's results table, from docs/results/results.json: prints Markdown.

python scripts/readme_results.py
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "results.json"

#: Row of the README -> (table of the study, what the row's cells before the value must be, column).
ROWS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "harmless, plain: right answers": (
        "Prompts that should be answered",
        ("harmless, plain",),
        "right answers",
    ),
    "harmful, plain: refused (RR)": ("Refusals and successful attacks", ("RR",), "plain"),
    "under attack: refused (RR)": ("Refusals and successful attacks", ("RR",), "all"),
    "under attack: harmful (ASR)": ("Refusals and successful attacks", ("ASR",), "all"),
    "internal recovery (IRR at .5)": ("Recovery from harmful drafts", (), "IRR at 0.5"),
    "successful jailbreaks": (
        "A guard that watches while the model writes",
        (),
        "jailbreaks",
    ),
    "SRI Guard: AUROC": (
        "Successful jailbreaks against harmless prompts, plain and wrapped",
        ("sri",),
        "AUROC",
    ),
    "SRI Guard, standardised: AUROC": (
        "Successful jailbreaks against harmless prompts, plain and wrapped",
        ("sri-standardised",),
        "AUROC",
    ),
    "streaming guard: jailbreaks flagged": (
        "A guard that watches while the model writes",
        (),
        "flagged",
    ),
    "streaming guard: harmless flagged (1% aimed at)": (
        "A guard that watches while the model writes",
        (),
        "harmless flagged",
    ),
}


def markdown(results: Mapping[str, Any]) -> str:
    """A column a model, a row a figure with its 95% interval."""
    tables = {table["title"]: table for table in results["tables"]}
    arms = [row[0] for row in tables["A guard that watches while the model writes"]["rows"]]
    lines = ["| | " + " | ".join(arms) + " |", "|---" * (len(arms) + 1) + "|"]
    for name, (title, after, column) in ROWS.items():
        table = tables[title]
        place = table["columns"].index(column)
        cells = [shown(found(table["rows"], (arm, *after)), place) for arm in arms]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def found(rows: Sequence[Sequence[Any]], begins: tuple[str, ...]) -> Sequence[Any] | None:
    """The row that begins with these cells."""
    return next((row for row in rows if tuple(row[: len(begins)]) == begins), None)


def shown(row: Sequence[Any] | None, place: int) -> str:
    """A value as the README prints it: two digits, the interval in brackets."""
    if row is None:
        return "–"
    value = row[place]
    if isinstance(value, dict):
        middle, low, high = (number(value[k]) for k in ("value", "low", "high"))
        return f"{middle} [{low}, {high}]"
    return str(value)


def number(value: float) -> str:
    """Two digits, without the zero in front."""
    return f"{value:.2f}".removeprefix("0")


if __name__ == "__main__":
    print(markdown(json.loads(RESULTS.read_text("utf-8"))), end="")
