"""Commands that list detectors and defenses, and run a defense."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from demur.cli import app
from demur.defenses import DEFENSES, SmoothLLM


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_lists_name_everything() -> None:
    detectors = json.loads(run("detectors", "--json"))
    assert {row["name"] for row in detectors if row["supervised"]} == {"linear-probe", "hesitation"}
    defenses = json.loads(run("defenses", "--json"))
    assert [row["name"] for row in defenses] == list(DEFENSES)
    for command, rows in (("detectors", detectors), ("defenses", defenses)):
        text = run(command)
        assert all(row["name"] in text and row["source"] in text for row in rows)
    assert {f.name for f in fields(SmoothLLM)} == set(
        next(row["settings"] for row in defenses if row["name"] == "smooth-llm")
    )


def test_defend_writes_every_prompt_and_what_it_cost(tmp_path: Path) -> None:
    out = tmp_path / "defended.csv"
    arguments = (
        *("defend", "organism:test/harmful/wild", "--limit", "3", "--model", "organism-ar"),
        *("--defense", "smooth-llm", "--defense-set", "copies=2", "--out", str(out)),
        *("--set", "steps=8"),
    )
    summary = json.loads(run(*arguments, "--json"))
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(row["undefended"] and row["reason"] for row in rows)
    assert summary["forward passes, undefended"] == 3 * 8
    assert summary["forward passes"] == 24 + sum(int(row["extra_passes"]) for row in rows)
    assert summary["kept"] + summary["blocked"] + summary["changed"] == 3
    assert "undefended" in run(*arguments)
