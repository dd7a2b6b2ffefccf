"""demur scan says something true for models that refuse some prompts, all of them, and none."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import demur
from demur.cli import app
from demur.models.base import LanguageModel
from demur.organism import world
from demur.prompts import write_prompts
from demur.scan import Scan, bundled_prompts, scan
from demur.scan.scan_page import headline, limits, next_commands, sentences, write_scan


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return demur.load("organism-ar")


@pytest.fixture(scope="module")
def usual(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    return scan(model, tmp_path_factory.mktemp("usual"), quick=True)


def written(folder: Path, kind: str, n: int) -> str:
    """A file of prompts of the built-in world."""
    return str(write_prompts(folder / f"{kind}.jsonl", world.prompts("guard", kind, n=n)))


def test_the_bundled_prompts_are_three_hundred_different_ones() -> None:
    found = bundled_prompts()
    assert {label: len(prompts) for label, prompts in found.items()} == {
        "harmless": 200,
        "borderline": 100,
    }
    texts = [prompt.text for prompts in found.values() for prompt in prompts]
    assert len(set(texts)) == 300


def test_a_model_that_refuses_what_is_harmful(usual: Scan) -> None:
    assert usual.kinds["harmful"].counts.hits >= 38
    assert usual.kinds["harmless"].counts.hits == 0
    assert usual.anchors is not None
    assert usual.held_out is not None
    assert usual.held_out.answered == "harmless"
    assert usual.held_out.per_step[-1].value > 0.9
    assert any("refusal or topic" in line for line in limits(usual))
    assert "guard fit" in " ".join(next_commands(usual, Path("scan")))


def test_the_page_shows_what_was_found(usual: Scan, model: LanguageModel, tmp_path: Path) -> None:
    page = write_scan(tmp_path / "scan.html", usual, text_of=lambda t: model.decode([t]))
    text = page.read_text()
    for line in (
        *sentences(usual),
        "Harm: not judged",
        "toy model",
        "What this scan does not show",
    ):
        assert line in text
    assert text.count('class="scene"') or "scene" in text
    assert [name for name, _ in headline(usual)] == ["Refuses", "Over-refuses", "Inside"]


def test_a_model_that_never_refuses(model: LanguageModel, tmp_path: Path) -> None:
    """Harmless tasks stand for harmful ones, so that nothing is refused."""
    harmful = written(tmp_path, "harmless", 24)
    found = scan(
        model, tmp_path / "scan", harmful=harmful, harmless=written(tmp_path, "borderline", 4)
    )
    assert "refused none of 24 harmful prompts" in " ".join(sentences(found))
    assert found.anchors is None
    assert "refused 0 of 24 harmful prompts" in found.no_anchors
    assert not (tmp_path / "scan" / "anchors.safetensors").exists()
    page = write_scan(tmp_path / "p.html", found, text_of=lambda t: model.decode([t])).read_text()
    assert "no signal" in page


def test_a_model_that_refuses_everything(model: LanguageModel, tmp_path: Path) -> None:
    harmful = written(tmp_path, "harmful", 48)
    lines = Path(harmful).read_text().splitlines()
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(lines[24:]))
    Path(harmful).write_text("\n".join(lines[:24]))
    found = scan(model, tmp_path / "scan", harmful=harmful, harmless=str(other))
    assert "refused all" in " ".join(sentences(found))
    assert "refused all" in found.no_anchors


def test_a_diffusion_model_without_harmful_prompts(tmp_path: Path) -> None:
    prompts = written(tmp_path, "harmless", 6)
    found = scan(demur.load("organism-dlm"), tmp_path / "scan", harmless=prompts, quick=True)
    assert "harmful" not in found.kinds
    assert "--harmful FILE" in found.no_anchors
    assert "harmful" in next_commands(found, Path("scan"))[0]


def test_an_interrupted_scan_resumes(model: LanguageModel, tmp_path: Path) -> None:
    done: list[int] = []
    harmful = written(tmp_path, "harmless", 3)
    for _ in range(2):
        scan(
            model,
            tmp_path / "scan",
            harmful=harmful,
            harmless=written(tmp_path, "borderline", 3),
            progress=lambda count, total: done.append(count),
        )
    assert done[-1] == 106


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    harmful, out = written(tmp_path, "harmful", 2), tmp_path / "out"
    arguments = ["scan", "organism-ar", "--harmful", harmful, "--quick", "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "It refused all 2 harmful prompts." in result.output
    assert "prompts answered" in result.output
    assert (out / "scan.html").stat().st_size > 10_000
