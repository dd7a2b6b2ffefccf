"""Every example runs as a program of its own, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from commanded import Desk

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    assert len(example.read_text().splitlines()) <= 40
    folder = tmp_path / "empty"
    folder.mkdir()
    with Desk(folder) as desk:
        desk.python(example.read_text())
    assert desk.log.read_text().strip()
