"""``demur trace`` through real faults: every run ends with the bytes of one that met none."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import demur
from conftest import not_here, save_llama
from demur.cli import main
from demur.errors import ModelError
from demur.models.base import LanguageModel
from demur.runs import trace_to
from demur.store import Store
from interrupted import SETTINGS, in_child, shards, some_prompts

PROMPTS = some_prompts(16)
KILLS = 50


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and a prompt file."""
    folder = tmp_path_factory.mktemp("faults")
    save_llama(folder / "tiny")
    lines = [f"{prompt.id},{prompt.text}\n" for prompt in PROMPTS]
    (folder / "p.csv").write_text("".join(["id,prompt\n", *lines]))
    return folder


def trace(place: Path, out: Path) -> None:
    """``demur trace``, in this process; leave with its exit code."""
    command = ["demur", "trace", str(place / "p.csv"), "--model", str(place / "tiny")]
    sys.argv = [*command, "--batch-size", "2", "--set", "steps=2", "--out", str(out)]
    try:
        main()
    except SystemExit as end:
        os._exit(int(end.code or 0))


def test_fifty_kills_at_random_moments(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Loaded once, so that the kills fall where something is being traced and written.
    model = demur.load(place / "tiny")
    monkeypatch.setattr("demur.models.load", lambda *_, **__: model)
    began = time.perf_counter()
    assert in_child(lambda: trace(place, tmp_path / "whole")) == 0
    longest, whole = time.perf_counter() - began, shards(tmp_path / "whole")
    dice, killed, finished = random.Random(3), 0, 0
    out = tmp_path / "run"
    while killed < KILLS:
        kept = shards(out) if out.exists() else {}
        code = in_child(lambda: trace(place, out), kill_after=dice.uniform(0, 1) * longest)
        killed += code == -signal.SIGKILL
        now = shards(out) if out.exists() else {}
        sealed = {name for name in kept if name.startswith("traces/")}
        assert all(now.get(name) == kept[name] for name in sealed), "a finished shard was lost"
        if code == 0:
            assert now == whole
            finished += 1
            shutil.rmtree(out)
    assert in_child(lambda: trace(place, out)) == 0
    assert shards(out) == whole
    assert len(Store.open(out)) == len(PROMPTS)


def test_the_second_command_on_a_folder_is_told_who_holds_it(place: Path, tmp_path: Path) -> None:
    from demur.store.folder import LocalFolder

    said = tmp_path / "said"

    with LocalFolder(tmp_path / "run").locked():
        pid = os.fork()
        if pid == 0:
            with said.open("w", buffering=1) as sys.stderr:
                trace(place, tmp_path / "run")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    assert f"is being written by process {os.getpid()} on" in said.read_text()
    assert in_child(lambda: trace(place, tmp_path / "run")) == 0


# ------------------------------------------------------------------ clocks

#: A wall clock that jumps eleven years forth and back at each look.
JUMPING = """
#define _GNU_SOURCE
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    static int looks;
    int code = syscall(SYS_clock_gettime, id, t);
    if (id == CLOCK_REALTIME) t->tv_sec += (looks++ % 2 ? 1 : -1) * 347000000L;
    return code;
}
"""


@pytest.fixture(scope="module")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes a process's clock jump, made by the C compiler of this machine."""
    if not (compiler := shutil.which("cc")):
        not_here("a C compiler, to make a jumping clock with")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(JUMPING)
    made = folder / "clock.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(made), str(folder / "clock.c")]
    subprocess.run(command, check=True)
    return made


def test_a_clock_that_jumps_changes_no_byte(place: Path, tmp_path: Path, jumping: Path) -> None:
    assert in_child(lambda: trace(place, tmp_path / "calm")) == 0
    command = [*("trace", place / "p.csv", "--model", place / "tiny", "--set", "steps=2")]
    command += ["--batch-size", "2", "--out", tmp_path / "wild"]
    code = "import time; a, b = time.time(), time.time(); assert abs(a - b) > 1e8\n"
    code += "from demur.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        env={**os.environ, "LD_PRELOAD": str(jumping)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert shards(tmp_path / "wild") == shards(tmp_path / "calm")
    for path in (tmp_path / "wild").rglob("*"):  # files of tomorrow and of 1970
        os.utime(path, (0, 0) if path.suffix == ".json" else (2**31, 2**31))
    assert in_child(lambda: trace(place, tmp_path / "wild")) == 0
    assert shards(tmp_path / "wild") == shards(tmp_path / "calm")


# ------------------------------------------------------------------ memory


def test_too_little_memory_in_a_batch_loses_nothing(place: Path, tmp_path: Path) -> None:
    model = demur.load(place / "tiny")
    trace_to(tmp_path / "whole", model, PROMPTS, **SETTINGS)
    out, told = tmp_path / "run", tmp_path / "told"

    def starved() -> None:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if done == 8:  # from here on there is next to nothing left
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                most = pages * resource.getpagesize() + (1 << 20)
                resource.setrlimit(resource.RLIMIT_AS, (most, most))

        _hungry(model)
        try:
            trace_to(out, model, PROMPTS, progress=advance, **SETTINGS)
        except ModelError as error:
            told.write_text(str(error))

    assert in_child(starved) == 0
    assert "Finished rows are kept" in told.read_text()
    kept = Store.open(out).ids()
    assert len(kept) == 8
    named = told.read_text().split(" failed:")[0].removeprefix("Tracing prompts ").split(", ")
    assert len(named) == SETTINGS["batch_size"]
    assert not {*named} & {*kept}
    trace_to(out, model, PROMPTS, **SETTINGS)
    assert shards(out) == shards(tmp_path / "whole")


def _hungry(model: LanguageModel) -> None:
    """Let each pass of the model ask for 64 MiB, as a larger one would."""
    import torch

    def ask(*_: object) -> None:
        torch.empty(1 << 24)

    model.net.base_model.register_forward_pre_hook(ask)
