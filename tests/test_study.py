"""Studies on the built-in models: the same tables twice, kills, changes and failures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from demur import organism
from demur.attacks import attack_from
from demur.errors import StoreError
from demur.models import load
from demur.sampling import sampler_from
from demur.study.engine.cells import WANTED, Cell, Subject, keyed_by
from demur.study.engine.runner import run_cells
from demur.study.engine.workspace import CellFolder, Workspace, costs
from demur.study.plan.arms import Arm, arms_of, locate_all
from demur.study.plan.prompt_sets import StudySet
from demur.study.plan.spec_file import read_study
from demur.study.report.results import read_results
from demur.study.report.results_file import schema
from demur.study.report.study_page import write_study_report
from demur.study.run import failures, plan_study, run_study
from demur.study.work.graph import cells_of
from demur.study.work.traces import AttackCell, TraceCell, sampler_of, target_of
from demur.types import Prompt
from waiting import child, until

RUN = "import sys; from demur.cli import main; sys.argv[0] = 'demur'; main()"


def tiny(folder: Path, **changes: Any) -> Path:
    """A study file of both kinds of models, its prompts in files beside it."""
    from demur.organism import world

    folder.mkdir(exist_ok=True, parents=True)
    lists = {
        "good": world.prompts("anchors", "harmless", n=12),
        "bad": world.prompts("anchors", "harmful", n=12),
        "fit": world.prompts("guard", "harmless", n=20),
        "held": world.prompts("calibration", "harmless", n=10),
        "plain": world.prompts("test", "harmless", n=4),
        "asked": world.prompts("test", "harmful", attack="wild", n=12),
    }
    for name, prompts in lists.items():
        rows = [{"id": p.id, "prompt": p.text, "goal": p.goal, "attack": p.attack} for p in prompts]
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{name}.jsonl").write_text(text + "\n")

    def one(name: str, label: str, n: int) -> dict[str, Any]:
        return {"source": f"{name}.jsonl", "label": label, "n": n, "few": n}

    study = {
        "title": "tiny",
        "alpha": 0.1,
        "judges": {"harm": "oracle"},
        "allow_few": True,
        "batch_size": 16,
        "models": [
            {"name": "AR", "model": "organism-ar"},
            {"name": "DLM", "model": "organism-dlm", "share": 0.5},
        ],
        "sets": {
            "anchors": [one("good", "harmless", 12), one("bad", "harmful", 12)],
            "fit": [one("fit", "harmless", 20) | {"models": ["AR"]}],
            "calibration": [one("held", "harmless", 10) | {"models": ["AR"]}],
            "test": [one("plain", "harmless", 4), one("asked", "harmful", 12)],
        },
        "detectors": ["sri", "length"],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study | changes))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study file and the folder that it was run into."""
    root = tmp_path_factory.mktemp("study")
    path = tiny(root / "files")
    study, folder = read_study(path)
    outcomes = run_study(study, folder, root / "out")
    assert not failures(outcomes), [one.error for one in failures(outcomes)]
    write_study_report(root / "out")
    return path, root / "out"


def without_times(path: Path) -> dict[str, Any]:
    found = json.loads((path / "results.json").read_text())
    return {k: v for k, v in found.items() if k not in ("made", "timings")}


def stale(path: Path, out: Path) -> set[str]:
    return {
        f"{e.cell.kind} {e.cell.name}"
        for e in plan_study(*read_study(path), out)
        if e.state != "done"
    }


def test_results_fit_the_schema_that_ships(made: tuple[Path, Path]) -> None:
    shipped = json.loads(
        (Path(organism.__file__).parents[1] / "study/results.schema.json").read_text()
    )
    assert shipped == schema(), "write it again: python -m demur.study.report.results_file"
    jsonschema.validate(json.loads((made[1] / "results.json").read_text()), shipped)


def test_a_second_run_elsewhere_gives_the_same_tables_after_kills(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", RUN, "study", "run", str(made[0]), "--out", str(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for cells in (3, 6):  # killed when so many are done
        with child(*command, **quiet) as process:
            until(lambda: len([*out.rglob("cell.json")]) >= cells, alive=process)  # noqa: B023
    study, folder = read_study(made[0])
    before = {p: p.stat().st_mtime_ns for p in out.rglob("cell.json")}
    run_study(study, folder, out)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    write_study_report(out)
    assert without_times(out) == without_times(made[1])


def test_the_report_is_remade_without_models(made: tuple[Path, Path], tmp_path: Path) -> None:
    code = (
        "import sys; from demur.study.report.study_page import write_study_report as w;"
        "import demur.models; demur.models.load = None;"
        f"w({str(made[1])!r}, {str(tmp_path)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert without_times(tmp_path) == without_times(made[1])
    assert (tmp_path / "report.html").read_text() == (made[1] / "report.html").read_text()


def test_a_change_makes_stale_what_depends_on_it(made: tuple[Path, Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(made[0].parent, tmp_path / "files")) / "study.yaml"
    assert not stale(path, made[1])
    asked = path.parent / "asked.jsonl"
    lines = asked.read_text().splitlines()
    asked.write_text(
        "\n".join([lines[0].replace('"prompt": "', '"prompt": "please , '), *lines[1:]])
    )
    changed = stale(path, made[1])
    assert "traces AR, test asked" in changed
    assert "verdicts DLM, test asked" in changed
    assert "scores AR, sri" in changed
    kept = (
        "traces AR, test plain",
        "traces AR, fit",
        "verdicts AR, test plain",
        "anchors",
        "guards",
    )
    assert not [name for name in changed if name.startswith(kept)]


def test_another_revision_makes_stale_that_model_alone(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(made[0].parent, tmp_path / "files")) / "study.yaml"
    weights = Path(shutil.copytree(organism.path("organism-ar"), tmp_path / "files" / "organism-x"))
    path.write_text(path.read_text().replace("model: organism-ar", "model: organism-x"))
    assert not stale(path, made[1]), "the same weights elsewhere are the same model"
    config = weights / "config.json"
    config.write_text(config.read_text().replace('"use_cache": true', '"use_cache": false'))
    changed = stale(path, made[1]) - {"replay telling generations"}
    assert changed
    assert all(" AR" in name for name in changed), changed


def test_what_fails_is_shown_in_its_place_and_the_rest_goes_on(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    models = [
        {"name": "AR", "model": "organism-ar"},
        {"name": "gone", "model": "no-such-model-anywhere"},
    ]
    path = tiny(tmp_path / "files", models=models)
    study = yaml.safe_load(path.read_text())
    study["sets"]["test"].append(
        {"source": "plain.jsonl", "n": 2, "label": "harmful", "attacks": [{"name": "pad"}]}
    )
    path.write_text(yaml.safe_dump(study))
    out = Path(shutil.copytree(made[1], tmp_path / "out"))
    command = [sys.executable, "-c", RUN, "study", "run", str(path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "left to right" in done.stderr
    results = read_results(out)
    assert [one.name for one in results.main] == ["AR"]
    assert "no-such-model" in results.failed_arms()["gone"]
    page = (out / "report.html").read_text()
    assert "failed: ModelError: No model at" in page
    assert "left to right" in page
    rates = next(t for t in without_times(out)["tables"] if t["title"].startswith("Refusals"))
    assert any(row[0] == "gone" and "failed" in row[1] for row in rates["rows"])


def test_cells_follow_what_they_need(made: tuple[Path, Path]) -> None:
    seen: set[str] = set()
    study, folder = read_study(made[0])
    for cell in cells_of(study, folder, locate_all(study, folder)):
        assert {need.key for need in (*cell.needs, *cell.wants)} <= seen, cell
        seen.add(cell.key)


@dataclass(frozen=True)
class Number:
    n: int


@dataclass(frozen=True, kw_only=True)
class Fragile(Cell[Number]):
    """Fails while the file is there."""

    kind = "a"
    broken: Path = field(metadata=keyed_by(str))
    arm: str = ""

    @property
    def subject(self) -> Subject:
        return Subject(arm=self.arm)

    @property
    def name(self) -> str:
        return "fragile"

    def run(self, workspace: Workspace) -> Number:
        if self.broken.exists():
            raise ValueError("not yet")
        return Number(1)


@dataclass(frozen=True, kw_only=True)
class User(Cell[Number]):
    """Counts those of the wanted cells that are done."""

    kind = "b"
    used: tuple[Fragile, ...] = field(metadata=WANTED)

    def run(self, workspace: Workspace) -> Number:
        return Number(sum(workspace.result(cell).n for cell in workspace.done(self.used)))


@dataclass(frozen=True, kw_only=True)
class Needer(Cell[Number]):
    kind = "c"
    needed: Fragile

    def run(self, workspace: Workspace) -> Number:
        return workspace.result(self.needed)


@dataclass(frozen=True, kw_only=True)
class Slow(Cell[Number]):
    kind = "a"
    count: int

    @property
    def subject(self) -> Subject:
        return Subject(arm="m")

    @property
    def units(self) -> int:
        return self.count

    def run(self, workspace: Workspace) -> Number:
        time.sleep(0.2)
        return Number(self.count)


def test_a_result_made_without_a_wanted_cell_is_made_again_once_it_is_there(
    tmp_path: Path,
) -> None:
    first = Fragile(broken=tmp_path / "broken")
    first.broken.touch()
    cells = [first, User(used=(first,)), Needer(needed=first)]
    folder = CellFolder(tmp_path)
    states = [one.state for one in run_cells(cells, folder, progress=lambda *_: None)]
    assert states == ["failed", "done", "failed"]
    error = folder.outcome(cells[2]).error
    assert "a of fragile, which failed: ValueError: not yet" in error
    first.broken.unlink()
    outcomes = run_cells(cells, folder, progress=lambda *_: None)
    assert [one.state for one in outcomes] == ["done"] * 3
    assert outcomes[1].result(User) == outcomes[2].result(Needer) == Number(1)


def test_a_result_of_another_type_is_damage(tmp_path: Path) -> None:
    first = Fragile(broken=tmp_path / "broken")
    folder = CellFolder(tmp_path)
    run_cells([first], folder, progress=lambda *_: None)
    file = folder.path(first) / "cell.json"
    file.write_text(file.read_text().replace('"n": 1', '"n": "many"'))
    with pytest.raises(StoreError, match=r"is damaged\. Remove that folder"):
        run_cells([Needer(needed=first)], folder, progress=lambda *_: None)


def test_costs_take_measured_rates(tmp_path: Path) -> None:
    slow = Slow(count=2)
    run_cells([slow], CellFolder(tmp_path), progress=lambda *_: None)
    there, ahead = costs([slow, Slow(count=20)], tmp_path)
    assert (there.state, ahead.state, ahead.measured) == ("done", "waiting", True)
    assert ahead.seconds == pytest.approx(10 * there.seconds)


def test_models_are_loaded_as_the_study_says(tmp_path: Path) -> None:
    plain, half, moved = (
        tiny(tmp_path / name, loading=loading)
        for name, loading in (
            ("plain", {}),
            ("half", {"dtype": "bfloat16"}),
            ("moved", {"device": "cpu"}),
        )
    )
    arms = {}
    for path in (plain, half, moved):
        study, folder = read_study(path)
        arms[path] = arms_of(study, locate_all(study, folder))[0]
    workspace = Workspace(CellFolder(tmp_path), lambda units: None)
    assert workspace.model(arms[half]).dtype == "bfloat16"
    assert arms[plain].inputs == arms[moved].inputs != arms[half].inputs


def test_attacks_meet_the_model_under_the_arm_s_sampler() -> None:
    model = load("organism-dlm")
    changes = {"gen_length": 32, "block_length": 32}
    arm = Arm("short", "DLM", "organism-dlm", model.revision, sampler=changes)
    target = target_of(arm, model)
    assert sampler_from(target.traits.sampler) == sampler_of(arm, model)
    attack = attack_from({"name": "pad", "anchors": ["sure", "then"]})
    (whole,), (short,) = (attack([Prompt("bake")], target=one) for one in (model, target))
    # floor(floor(R / 3) / 1.5) positions from anchor to anchor
    assert (whole.response, short.response) == ((14, "sure", 13, "then"), (6, "sure", 5, "then"))
    plain = Arm("whole", "DLM", "organism-dlm", model.revision)
    chosen = StudySet("test", "test", (Prompt("bake"),), {"name": "pad"})
    first, second = (AttackCell(arm=one, chosen=chosen, seed=0) for one in (arm, plain))
    assert first.key != second.key
    batches = [
        TraceCell(arm=arm, chosen=chosen, attack=first, seed=0, batch_size=size) for size in (1, 2)
    ]
    assert batches[0].key == batches[1].key, "the batch size changes no result"
    assert batches[0].needs == (first,)
