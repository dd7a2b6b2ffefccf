"""What the README says works: its commands run in order, its Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from commanded import Desk

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("readme")
    (place / "prompts.csv").write_text(blocks("csv")[0])
    return place


def test_python(folder: Path) -> None:
    with Desk(folder) as desk:
        for number, code in enumerate(blocks("python")):
            desk.python(code if number else f"{code}\nassert sigma.shape == (60, 32)")


def test_commands(folder: Path) -> None:
    with Desk(folder) as desk:
        desk.shell("".join(blocks("sh")))
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "sigma.csv").read_text().startswith("id,step_1,")


def test_make_targets_are_there() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_results_are_those_of_the_study() -> None:
    script = Path(__file__).parents[1] / "scripts" / "readme_results.py"
    command = [sys.executable, str(script)]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert table in README
