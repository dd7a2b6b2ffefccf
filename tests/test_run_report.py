"""The page of single runs: what it says is what the traces, the anchors and the guard say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import guarded
from demur.guard import AnyGuard, StreamingGuard, fit_guard
from demur.organism import world
from demur.runs import trace_to
from demur.store import Store
from demur.study.report.run_report import write_run_report
from demur.types import Traces


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "attacked"
    asked = [
        *world.prompts("test", "harmless", n=6),
        *world.prompts("test", "harmful", attack="role_play", n=6),
    ]
    trace_to(out, guarded.model(), asked, sampler=guarded.SAMPLER)
    return out


def finished() -> AnyGuard:
    benign = guarded.every_attack("guard", "harmless", 10)
    return fit_guard(benign, anchors=guarded.anchors(), alpha=0.2)


@pytest.mark.parametrize("make", [finished, guarded.guard])
def test_either_guard_s_verdicts_are_shown(
    make: Callable[[], AnyGuard], run: Path, tmp_path: Path
) -> None:
    guard, traces = make(), Traces(tuple(Store.open(run).traces()))
    page = write_run_report(
        tmp_path / "page.html",
        [run],
        anchors=guarded.anchors().save(tmp_path / "anchors.safetensors"),
        guard=guard.save(tmp_path / "guard.safetensors"),
        tokenizer=guarded.model().tokenizer,
        replays=len(traces),
    ).read_text("utf-8")
    for kind in ("harmless", "harmful"):
        of_kind = np.array([t.prompt.label == kind for t in traces])
        share = guard.flag(traces)[of_kind].mean()
        row = next(r for r in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if f">{kind}<" in r)
        assert f"{share:.2f}".lstrip("0") in row.rpartition("<td")[2]
    shown = re.findall(r"application/json[^>]*>(.*?)</script>", page, re.DOTALL)
    steps = guard.detect(traces) if isinstance(guard, StreamingGuard) else [0] * len(traces)
    scenes = [scene for text in shown for scene in json.loads(text)]
    assert sorted(scene["flagged"] or 0 for scene in scenes) == sorted(steps)


def test_without_anchors_the_page_has_text_only(run: Path, tmp_path: Path) -> None:
    page = write_run_report(
        tmp_path / "page.html", [run], tokenizer=guarded.model().tokenizer, replays=2
    ).read_text("utf-8")
    assert "There is no signal, because no anchors were given. They cannot be fitted" in page
    assert "mean sigma" not in page
    assert "Harm: not judged." in page
    shown = re.findall(r"application/json[^>]*>(.*?)</script>", page, re.DOTALL)
    scenes = [scene for text in shown for scene in json.loads(text)]
    assert len(scenes) == 2
    assert {step["sigma"] for scene in scenes for step in scene["steps"]} == {None}
    assert all(scene["prompt"][:20] in scene["title"] for scene in scenes)
