"""What the README says works: its commands run in order, its Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commanded import Desk
from demur import organism
from demur.errors import SignalError
from demur.organism import oracle

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


@pytest.mark.parametrize("name", organism.NAMES)
def test_the_example_tells_refusals_from_answers(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(blocks("python")[0].replace("organism-dlm", name), found)
    sigma, harmful = found["sigma"][:, -1], [p.label == "harmful" for p in found["prompts"]]
    refused = [oracle.refused(text) for text in found["traces"].responses]
    # The judge may miss one refusal in ten, and never takes an answer for one.
    truly = sum(r and h for r, h in zip(refused, harmful, strict=True))
    assert 0.9 * truly <= found["anchors"].counts[1] <= truly
    assert sigma[refused].mean() < 0.5 < sigma[~np.array(refused)].mean()


def test_the_example_with_a_model_that_never_refuses(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from conftest import save_llama

    save_llama(tmp_path / "complies")
    monkeypatch.chdir(folder)
    code = blocks("python")[0].replace("organism-dlm", str(tmp_path / "complies"))
    with pytest.raises(SignalError, match="refused 0 of 30 harmful prompts") as said:
        exec(code, {})
    assert "--system" in str(said.value)


def test_commands(folder: Path) -> None:
    with Desk(folder) as desk:
        desk.shell("".join(blocks("sh")))
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "sigma.csv").read_text().startswith("id,prompt,step_1,")


def test_make_targets_are_there() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_results_are_those_of_the_study() -> None:
    script = Path(__file__).parents[1] / "scripts" / "readme_results.py"
    command = [sys.executable, str(script)]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert table in README
