"""The study's main tables as a page, from docs/results/results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "results.json"

#: Tables shown on the site; the report has all of them.
SHOWN = (
    "Prompts that should be answered",
    "Refusals and successful attacks",
    "Same weights: from AR order to remasking",
    "Recovery from harmful drafts",
    "Successful jailbreaks against harmless prompts, plain and wrapped",
    "A guard that watches while the model writes",
    "Attackers who know the guard",
)


def results_tables() -> str:
    """What was found, and the main tables."""
    results = json.loads(RESULTS.read_text("utf-8"))
    known = {table["title"]: table for table in results["tables"]}
    found = "\n".join(f"- {finding['text']}" for finding in results["findings"])
    parts = [
        "",
        "[Open the report](report.html) · [results.json](results.json)",
        f"## What was found\n\n{found}",
        "Numbers in brackets are 95% intervals. The report has all tables, figures and replays.",
    ]
    for title in SHOWN:
        table = known[title]
        parts.append(f"## {title}\n\n{markdown(table)}\n\n{table['note']}")
    return "\n\n".join(parts) + "\n"


def markdown(table: Mapping[str, Any]) -> str:
    """A table's rows."""
    head = "| " + " | ".join(table["columns"]) + " |"
    lines = [head, "|---" * len(table["columns"]) + "|"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in table["rows"]]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """A value, with its interval where it has one."""
    if isinstance(value, dict):
        low, high = value.get("low"), value.get("high")
        shown = number(value["value"])
        return shown if low is None or high is None else f"{shown} [{number(low)}, {number(high)}]"
    if value is None:
        return "–"
    return number(value) if isinstance(value, float) else str(value).replace("|", "\\|")


def number(value: float | None) -> str:
    """Two digits, three below .01, without the zero in front."""
    if value is None:
        return "–"
    shown = f"{value:.2f}" if abs(value) >= 0.01 or not value else f"{value:.3f}"
    return shown.replace("0.", ".", 1) if abs(value) < 1 else shown
