"""``demur guard fit`` with thresholds by goal and by attack."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import guarded
from demur.cli import app
from demur.errors import DemurError
from demur.guard import Guard, StreamingGuard, load_guard
from demur.organism import world
from demur.runs import trace_to
from demur.types import Prompt


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anchors, and a benign run of 240 prompts about 40 goals, plain and in one wrapper."""
    place = tmp_path_factory.mktemp("guarding")
    guarded.anchors().save(place / "anchors.safetensors")
    prompts: list[Prompt] = []
    for attack in ("none", "flip"):
        drawn = world.prompts("guard", "harmless", attack=attack)
        goals = sorted({p.goal for p in drawn})[:40]
        prompts += [p for goal in goals for p in [q for q in drawn if q.goal == goal][:3]]
    trace_to(place / "run", guarded.model(), prompts, sampler=guarded.SAMPLER, batch_size=64)
    return place


def fit(folder: Path, *options: str) -> Guard | StreamingGuard:
    files = ["--anchors", str(folder / "anchors.safetensors"), "--out", str(folder / "guard")]
    command = ["guard", "fit", str(folder / "run"), *files, "--alpha", "0.1", *options]
    CliRunner().invoke(app, command, catch_exceptions=False, standalone_mode=False)
    return load_guard(folder / "guard")


def test_goals_count_as_one(folder: Path) -> None:
    guard = fit(folder, "--streaming", "--by-goal")
    assert isinstance(guard, StreamingGuard)
    weights = guard.group("all").weights
    assert weights is not None
    assert weights.sum() == pytest.approx(20)
    assert set(weights.round(3)) == {0.167}


def test_goals_of_a_finished_guard(folder: Path) -> None:
    with pytest.raises(DemurError, match=r"5 clusters .* at least 9 benign clusters"):
        fit(folder, "--by-goal")
    halved = fit(folder, "--by-goal", "--calibration", str(folder / "run"))
    assert isinstance(halved, Guard)
    weights = halved.group("all").weights
    assert weights is not None
    assert weights.sum() == pytest.approx(40)
    assert (
        (halved.p_value(halved.calibration) <= 0.1) == (halved.calibration > halved.threshold)
    ).all()


def test_a_threshold_for_each_wrapper(folder: Path) -> None:
    guard = fit(folder, "--streaming", "--by-attack")
    assert isinstance(guard, StreamingGuard)
    assert set(guard.groups) == {"none", "flip"}
    with pytest.raises(DemurError, match="--streaming"):
        fit(folder, "--by-attack")
