"""How a study is done: in several processes, from files that are there, and made with what."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import demur
from demur import organism
from demur.defenses import Setup, defense_from
from demur.defenses.defended import counted
from demur.errors import DemurError, InputError
from demur.generation import trace
from demur.models.checkpoint import find
from demur.sampling import sampler_from
from demur.study.engine.cells import UNKEYED, WANTED, Cell, Subject, keyed_by
from demur.study.engine.provenance import together
from demur.study.engine.runner import run_cells, run_in_processes
from demur.study.engine.workspace import CellFolder, Workspace, costs
from demur.study.plan.arms import locate_all
from demur.study.plan.prompt_sets import missing_files, one_a_goal, prompt_sets
from demur.study.plan.spec_file import read_study
from demur.study.run import plan_study, run_study
from demur.study.work.graph import cells_of
from demur.study.work.traces import pooled_again
from demur.types import Prompt, Record
from waiting import child, until

SMALL = {
    "title": "small",
    "alpha": 0.2,
    "allow_few": True,
    "models": [
        {"name": "AR", "model": "organism-ar"},
        {"name": "other", "model": "organism-ar-small"},
    ],
    "sets": {
        "anchors": [
            {"source": f"organism:anchors/{kind}", "n": 6} for kind in ("harmless", "harmful")
        ],
        "fit": [{"source": "organism:guard/harmless", "n": 24}],
        "calibration": [{"source": "organism:calibration/harmless", "n": 6}],
        "test": [
            {"source": "organism:test/harmful/wild", "n": 4},
            {
                "source": "organism:test/harmful",
                "n": 3,
                "attacks": [{"name": "flip", "mode": "FWO"}, {"name": "flip", "mode": "FCW"}],
            },
        ],
    },
    "detectors": ["sri"],
    "ablation": {
        "models": ["AR"],
        "tau": [0.1],
        "steps": [8],
        "anchors": [4],
        "poolings": {"AR": ["content"]},
    },
    "adaptive": {
        "models": ["AR"],
        "source": "organism:test/harmful/role_play",
        "goals": 2,
        "searches": [{"name": "random_search", "settings": {"opening": "sure", "queries": 4}}],
    },
}


def study_file(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def values(out: Path) -> dict[str, Any]:
    """Place -> result of every cell."""
    found = {p.parent.name: json.loads(p.read_text()) for p in out.rglob("cell.json")}
    assert {one["state"] for one in found.values()} == {"done"}
    return {place: one["value"] for place, one in found.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study done one cell after the other."""
    root = tmp_path_factory.mktemp("engine")
    run_study(*read_study(study_file(root)), root / "out", workers=1)
    return root


def children(process: int) -> set[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    return {int(pid) for pid in listed.stdout.split()}


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except FileNotFoundError:
        return False


def test_processes_give_what_one_gives_and_die_with_the_one_that_started_them(
    made: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from demur.study.run import run_study;"
        "from demur.study.plan.spec_file import read_study;"
        f"run_study(*read_study({str(made / 'study.yaml')!r}), {str(tmp_path / 'out')!r}, workers=2)"
    )
    with child(sys.executable, "-c", code) as process:
        until(lambda: list((tmp_path / "out").rglob("cell.json")), alive=process)
        workers = children(process.pid)
        assert len(workers) >= 2
    until(lambda: not any(alive(pid) for pid in workers))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("cell.json")}
    run_study(*read_study(made / "study.yaml"), tmp_path / "out", workers=2)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert values(tmp_path / "out") == values(made / "out")


@dataclass(frozen=True)
class Number:
    n: int


@dataclass(frozen=True, kw_only=True)
class Broken(Cell[Number]):
    kind, name = "a", "broken"

    def run(self, workspace: Workspace) -> Number:
        raise ValueError("not today")


@dataclass(frozen=True, kw_only=True)
class Needer(Cell[Number]):
    kind, name = "b", "needer"
    needed: Broken

    def run(self, workspace: Workspace) -> Number:
        return Number(1)


@dataclass(frozen=True, kw_only=True)
class Deadly(Cell[Number]):
    """Kills its process while the file is there."""

    kind, name = "c", "deadly"
    file: Path = field(metadata=keyed_by(str))
    used: Broken = field(metadata=WANTED)
    arm: str = field(metadata=UNKEYED)

    @property
    def subject(self) -> Subject:
        return Subject(arm=self.arm)

    def run(self, workspace: Workspace) -> Number:
        if self.file.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return Number(1)


def test_failures_are_told_as_in_one_process_and_a_killed_one_ends_the_run(tmp_path: Path) -> None:
    first, file = Broken(), tmp_path / "deadly"
    cells = [
        first,
        Needer(needed=first),
        Deadly(file=file, used=first, arm="one"),
        Deadly(file=file, used=first, arm="two"),
    ]
    folder = CellFolder(tmp_path / "out")
    file.touch()
    with pytest.raises(DemurError, match=r"exit code -9.*deadly.*--workers 1"):
        run_in_processes(cells, folder, workers=2, progress=lambda *_: None)
    file.unlink()
    ticks: list[int] = []
    found = run_in_processes(
        cells, folder, workers=2, progress=lambda _, done, of: ticks.append(done)
    )
    one = run_cells(cells, CellFolder(tmp_path / "one"), progress=lambda *_: None)
    assert [(o.state, o.error) for o in found] == [(o.state, o.error) for o in one]
    assert [o.state for o in found] == ["failed", "failed", "done", "done"]
    assert ticks == sorted(ticks)
    assert ticks[-1] == 3, "two cells of one key are done once"


@pytest.mark.parametrize("pooling", ["generated", "content", "running"])
def test_states_pooled_again_are_those_of_a_generation(pooling: str) -> None:
    model = demur.load("organism-ar")
    prompts = organism_prompts(9)
    prompts[0] = replace(prompts[0], response=("sure , here",))
    layers = ("last", "first")
    traces = trace(model, prompts, record=Record(layers=layers))
    wanted = trace(model, prompts, record=Record(layers=layers, pooling=pooling))
    mark = replace(traces.fingerprint, pooling=pooling)
    for found, right in zip(pooled_again(model, traces, mark, layers), wanted, strict=True):
        assert found.fingerprint == right.fingerprint
        assert found.response == right.response
        for layer in layers:
            np.testing.assert_allclose(found.phi[layer], right.phi[layer], atol=2e-5)


def organism_prompts(count: int) -> list[demur.Prompt]:
    from demur.organism import world

    return world.prompts("test", "harmful", attack="wild", n=count)


def test_sets_of_one_source_and_attack_are_told_apart(made: Path) -> None:
    study, folder = read_study(made / "study.yaml")
    names = [one.name for one in prompt_sets(study, folder, study.models[0], main=True)]
    assert "test organism:test/harmful flip (mode FWO)" in names
    assert len(set(names)) == len(names)
    doubled = {**SMALL["sets"], "test": [SMALL["sets"]["test"][0]] * 2}  # type: ignore[index]
    study, folder = read_study(study_file(made / "doubled", sets=doubled))
    with pytest.raises(
        InputError, match="2 sets of AR are the same: 'test organism:test/harmful/wild"
    ):
        plan_study(study, folder, made / "out")


def test_every_missing_file_is_named_at_once_and_the_plan_goes_without(tmp_path: Path) -> None:
    sets = {**SMALL["sets"], "fit": [{"source": "a.csv", "n": 7}, {"source": "b.csv", "n": 8}]}  # type: ignore[dict-item]
    study, folder = read_study(study_file(tmp_path, sets=sets))
    assert missing_files(study, folder) == ["a.csv", "b.csv"]
    planned = plan_study(study, folder, tmp_path / "out")
    assert [e.cell.units for e in planned if e.cell.name == "AR, fit b"] == [8]
    with pytest.raises(InputError, match=r"2 prompt files are neither.*a\.csv, b\.csv"):
        run_study(study, folder, tmp_path / "out")


def test_a_plan_asks_no_hub() -> None:
    code = (
        "import socket; socket.socket.connect = None; from demur.study.run import plan_study;"
        "from demur.study.plan.spec_file import read_study;"
        "print(len(plan_study(*read_study('paper'), 'x')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100


def test_templates_tokenizers_and_the_middle_of_weights_tell_models_apart(tmp_path: Path) -> None:
    seen = {find(organism.path("organism-ar")).revision}
    for name in ("chat_template.jinja", "tokenizer.json", "model.safetensors"):
        folder = Path(shutil.copytree(organism.path("organism-ar"), tmp_path / name))
        assert find(folder).revision in seen
        data = bytearray((folder / name).read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(byte ^ 1 for byte in data[middle : middle + 64])
        (folder / name).write_bytes(data)
        seen.add(find(folder).revision)
    assert len(seen) == 4


def test_a_revision_is_kept_for_whoever_loads_the_model(tmp_path: Path) -> None:
    models = [{"name": "AR", "model": "organism-ar", "revision": "v1"}]
    study, folder = read_study(study_file(tmp_path, models=models, reader="AR"))
    assert locate_all(study, folder)["AR"].options == {"revision": "v1"}


def test_anchors_depend_on_who_judges_refusals(tmp_path: Path) -> None:
    keys = set()
    for endpoint in ("http://one", "http://two"):
        judges = {"refusal": ["asked-refusal"], "endpoint": endpoint, "model": "judge"}
        study, folder = read_study(study_file(tmp_path, judges=judges))
        cells = cells_of(study, folder, locate_all(study, folder))
        keys |= {cell.key for cell in cells if cell.kind in ("anchors", "surrogate")}
    assert len(keys) == 6, "three arms have anchors, and two judges"


def test_what_cells_were_made_with_is_told_together(made: Path) -> None:
    manifest = json.loads((made / "out" / "study.json").read_text())
    assert manifest["made_with"]["packages"]["torch"]
    cells = [json.loads(p.read_text()) for p in (made / "out").rglob("cell.json")]
    assert all(one["made"]["demur"] == demur.__version__ for one in cells)
    other = {"demur": "9", "packages": {"torch": "1"}}
    assert together([{"demur": "8", "packages": {"torch": "1"}}, other, other]) == {
        "demur": "8 (1 cells); 9 (2 cells)",
        "packages": {"torch": "1"},
    }


def test_searches_begin_with_the_prompt_as_it_is(made: Path) -> None:
    sent = next(v["attempts"] for v in values(made / "out").values() if v and "attempts" in v)
    assert [one["goal"] for one in sent if one["queries"] == 0] == [0, 1]


@dataclass(frozen=True, kw_only=True)
class Slow(Cell[Number]):
    kind, name = "a", "slow"
    n: int
    count: int
    arm: str = "m"
    pace: float = field(default=0.002, metadata=UNKEYED)

    @property
    def subject(self) -> Subject:
        return Subject(arm=self.arm)

    @property
    def units(self) -> int:
        return self.count

    def run(self, workspace: Workspace) -> Number:
        time.sleep(0.1)
        return Number(self.n)


def test_costs_take_the_rates_of_stale_cells_too(tmp_path: Path) -> None:
    run_cells([Slow(n=1, count=2)], CellFolder(tmp_path), progress=lambda *_: None)
    new, other = Slow(n=2, count=20), Slow(n=0, count=2, arm="n", pace=3.0)
    (done,) = costs([Slow(n=1, count=2)], tmp_path)
    ahead, unknown = costs([new, other], tmp_path)
    assert ahead.seconds == pytest.approx(10 * done.seconds)
    assert (ahead.measured, unknown.measured, unknown.seconds) == (True, False, 6.0)


def test_arms_of_one_sampler_share_their_generations() -> None:
    study, folder = read_study("organism")
    cells = cells_of(study, folder, locate_all(study, folder))
    places: dict[str, set[str]] = {}
    for cell in cells:
        if cell.kind == "traces":
            places.setdefault(cell.subject.arm, set()).add(cell.place)
    assert places["diffusion, AR order"] == places["diffusion, blocks of 1"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("self-examine", {}),
        ("smooth-llm", {"copies": 2}),
        ("perplexity", {"threshold": 3.0, "scorer": "organism-ar"}),
        ("diffuguard", {}),
    ],
)
def test_defenses_take_the_generation_they_are_compared_with(
    name: str, settings: dict[str, Any]
) -> None:
    model = demur.load("organism-dlm" if name == "diffuguard" else "organism-ar")
    prompts, sampler = organism_prompts(5), sampler_from(model.traits.sampler)
    defense = defense_from({"name": name, **settings})
    alone = defense(model, prompts, sampler=sampler)
    shared = Setup(model=model, sampler=sampler).answer(prompts)
    with counted(model) as spent:
        found = defense(model, prompts, sampler=sampler, undefended=shared)
    with counted(model) as whole:
        defense(model, prompts, sampler=sampler)
    assert (found.outcomes, found.passes) == (alone.outcomes, alone.passes)
    assert found.undefended_seconds == shared.seconds
    assert whole.rows - spent.rows == found.undefended_passes


def test_one_prompt_a_goal() -> None:
    prompts = [Prompt(str(i), goal=str(i % 3)) for i in range(7)]
    assert [p.text for p in one_a_goal(prompts)] == ["0", "1", "2"]
