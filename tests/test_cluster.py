"""A run on a Ray cluster is the run of one process, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import demur
from demur import cluster
from demur.errors import InputError, ModelError, StoreError
from demur.runs import trace_to
from demur.store import Store
from demur.store.manifest import versions
from demur.study.plan.spec_file import read_study
from demur.study.run import failures, run_study
from demur.types import Prompt
from interrupted import shards
from test_study import tiny
from waiting import child, until

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

# Ray's own: sockets and processes that it leaves to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore")

PROMPTS = [
    Prompt(f"how do i {' '.join(['bake'] * (1 + i % 7))} a cake", id=f"p{i}") for i in range(120)
]
SETTINGS: dict[str, Any] = {"batch_size": 2, "shard_rows": 3}  # many windows, so that some wait
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A machine of one core, as far as Ray can tell; this process has joined it."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    found = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of a run in one process."""
    folder = tmp_path_factory.mktemp("whole")
    trace_to(folder, demur.load("organism-ar"), PROMPTS, **SETTINGS)
    return shards(folder)


def workers() -> set[int]:
    """Processes of this test's Ray that hold a model, and those about to."""
    return {
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and b"ray::MapWorker" in told(entry, "cmdline") and is_ours(entry)
    }


def is_ours(process: Path) -> bool:
    """Whether a process descends from this one; other Rays may run on this machine."""
    while (pid := int(process.name)) > 1 and pid != os.getpid():
        found = told(process, "stat").rpartition(b")")[2].split()
        process = process.parent / (found[1].decode() if found else "0")
    return pid == os.getpid()


def told(process: Path, what: str) -> bytes:
    try:
        return (process / what).read_bytes()
    except OSError:
        return b""


def test_nothing_is_lost_when_driver_and_worker_are_killed_and_a_node_is_added(
    nodes: Any, whole: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    script = (
        "import sys\nfrom demur import cluster\nfrom test_cluster import PROMPTS, SETTINGS\n"
        "cluster.trace_to(sys.argv[1], 'organism-ar', PROMPTS, address=sys.argv[2], **SETTINGS)"
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = (sys.executable, "-c", script, folder, nodes.address)
    with child(*command, cwd=Path(__file__).parent, **quiet) as driver:
        until(lambda: len(shards(folder)) > 1, alive=driver)
        driver.kill()
        assert driver.wait() == -signal.SIGKILL
    assert 0 < len(Store.open(folder)) < len(PROMPTS)
    until(lambda: not workers())

    reported: list[int] = []
    killed: list[int] = []

    def advance(done: int) -> None:
        """Stop the only worker in its window, add a machine, let it work, and kill the first."""
        reported.append(done)
        if killed or not workers():
            return
        (first,) = workers()
        os.kill(first, signal.SIGSTOP)
        before = len(shards(folder))
        nodes.add_node(**NODE)
        until(lambda: len(workers()) == 2 and len(shards(folder)) > before)
        os.kill(first, signal.SIGKILL)
        killed.append(first)

    store = cluster.trace_to(folder, "organism-ar", PROMPTS, progress=advance, **SETTINGS)
    assert killed
    assert sum(reported) == len(PROMPTS) == len(store)
    assert shards(folder) == whole
    assert store.ids() == [prompt.id for prompt in PROMPTS]
    assert len(store.manifest.writers) == 1


def test_a_finished_run_needs_no_worker(
    nodes: Any, whole: dict[str, bytes], tmp_path: Path
) -> None:
    trace_to(tmp_path, demur.load("organism-ar"), PROMPTS, **SETTINGS)
    before = workers()
    reported: list[int] = []
    cluster.trace_to(tmp_path, "organism-ar", PROMPTS, progress=reported.append, **SETTINGS)
    assert sum(reported) == len(PROMPTS)
    assert workers() <= before
    assert shards(tmp_path) == whole


def test_errors_of_workers_are_those_of_one_process(nodes: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Prompt long has"):
        cluster.trace_to(tmp_path / "long", "organism-ar", [Prompt("cake " * 9000, id="long")])
    with pytest.raises(ModelError, match="no-such-model"):
        cluster.trace_to(tmp_path / "none", "no-such-model", PROMPTS)
    with pytest.raises(InputError, match="memory://run exists in this process only"):
        cluster.trace_to("memory://run", "organism-ar", PROMPTS)
    trace_to(tmp_path / "other", demur.load("organism-ar"), PROMPTS[:1])
    with pytest.raises(StoreError, match="seed: 0 -> 1"):
        cluster.trace_to(
            tmp_path / "other", "organism-ar", PROMPTS[:1], record=demur.Record(seed=1)
        )


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        ({"cores": 64}, "64 cores and 0 GPUs"),
        ({"gpus": 1}, "1 cores and 1 GPUs"),
        ({"options": {"device": "cuda"}}, "1 cores and 1 GPUs"),
        ({"options": {"device_map": "auto"}}, "1 cores and 1 GPUs"),
        ({"options": {"bits": 4}}, "1 cores and 1 GPUs"),
    ],
)
def test_a_worker_that_fits_nowhere_is_not_waited_for(
    nodes: Any, tmp_path: Path, asked: dict[str, Any], needs: str
) -> None:
    with pytest.raises(InputError, match=f"A worker needs {needs} of one machine"):
        cluster.trace_to(tmp_path / "run", "organism-ar", PROMPTS, **asked)
    assert not (tmp_path / "run").exists()


def test_a_study_on_a_cluster_traces_the_same(nodes: Any, tmp_path: Path) -> None:
    path = tiny(tmp_path / "files", models=[{"name": "AR", "model": "organism-ar"}])
    for out, ray_at in (("here", None), ("there", "auto")):
        outcomes = run_study(*read_study(path), tmp_path / out, workers=1, ray=ray_at)
        assert not failures(outcomes), [one.error for one in failures(outcomes)]
    runs = {run.parent.name for run in (tmp_path / "here").glob("cells/*/run")}
    assert len(runs) > 4
    for name in runs:
        here, there = (shards(tmp_path / out / "cells" / name / "run") for out in ("here", "there"))
        assert here == there


def refusal_of_a_worker(folder: Path) -> str:
    worker = cluster.Worker(str(folder), str(folder / "run"), {"name": "organism-ar"}, 4, 1)
    told = worker({"window": 0, "prompts": "[]"})
    assert told["kind"] == "StoreError"
    return str(told["problem"])


def test_a_worker_that_does_not_see_the_run_says_so(tmp_path: Path) -> None:
    assert "cannot see the run" in refusal_of_a_worker(tmp_path)


def test_a_worker_with_other_libraries_writes_no_row(tmp_path: Path) -> None:
    store = trace_to(tmp_path / "run", demur.load("organism-ar"), PROMPTS[:1])
    signed = store.manifest.signed({**versions(), "torch": "1.0"})
    store.folder.write("manifest.json", signed.to_json())
    assert "install the same versions on every machine" in refusal_of_a_worker(tmp_path)
    assert Store.open(tmp_path / "run").manifest == signed


def test_one_text_is_no_list_of_prompts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Pass a list"):
        cluster.trace_to(tmp_path / "run", "organism-ar", "how do i bake a cake ?")
