"""Runs in child processes that are really killed or measured; ``test_runs`` runs this as a program.

interrupted.py everywhere FOLDER                   file operations at which a writer was killed
interrupted.py kill FOLDER MODEL COUNT LONGEST     what each start reported and what was there
interrupted.py memory FOLDER MODEL COUNT           peak KiB after each batch
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import demur
from demur.errors import StoreError
from demur.models.base import LanguageModel
from demur.runs import trace_to
from demur.store import Store
from demur.types import Prompt, Record
from test_store import a_trace, write

#: How every run under test is made, wherever it runs.
SETTINGS: dict[str, Any] = {"batch_size": 4, "shard_rows": 16}


def some_prompts(count: int) -> list[Prompt]:
    """Prompts of different lengths."""
    words = [[f"w{(i * k) % 40}" for k in range(1 + i % 9)] for i in range(count)]
    return [Prompt(" ".join(line), id=f"p{i}") for i, line in enumerate(words)]


def in_child(work: Callable[[], object], *, kill_after: float | None = None) -> int:
    """Run in a fork, killed after so many seconds. Returns the exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def everywhere(folder: Path) -> list[str]:
    """Kill a writer at its first file operation, its second, and so on, and finish each run."""
    traces = [a_trace(i) for i in range(6)]
    write(folder / "whole", traces)
    killed: list[str] = []
    while True:
        place = folder / "run"
        tell, event = os.pipe()
        code = in_child(lambda: write_until(place, traces, len(killed), event))  # noqa: B023
        os.close(event)
        with os.fdopen(tell) as pipe:
            killed.append(pipe.read())
        write(place, traces)
        assert shards(place) == shards(folder / "whole"), killed
        assert not [*place.rglob("*.tmp")], killed
        shutil.rmtree(place)
        if code != -signal.SIGKILL:
            assert code == 0
            return killed[:-1]


def write_until(place: Path, traces: list[demur.Trace], limit: int, tell: int) -> None:
    """Write a run and be killed right before the file operation after the first ``limit``."""
    left = limit

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal left
        touching = event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if touching and str(place) in str(args[0]):
            if left == 0:
                os.write(tell, event.encode())
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)
    write(place, traces)


def kill(folder: Path, model: LanguageModel, count: int, longest: float) -> list[dict[str, int]]:
    """Start, kill at a random moment and start again until a start comes to its end."""
    dice = random.Random(7)
    starts = []
    while True:
        tell, report = os.pipe()

        def advance(done: int, report: int = report) -> None:
            os.write(report, bytes([done]))

        code = in_child(
            lambda: trace_to(folder, model, some_prompts(count), progress=advance, **SETTINGS),
            kill_after=dice.uniform(0, longest),
        )
        longest *= 1.1  # comes to an end on a machine that has become slower, too
        os.close(report)
        with os.fdopen(tell, "rb") as pipe:
            reported = sum(pipe.read())
        try:
            there = len(Store.open(folder).ids())
        except StoreError:  # killed before there was a manifest
            there = 0
        starts.append({"code": code, "reported": reported, "there": there})
        if code != -signal.SIGKILL:
            return starts


def memory(folder: Path, model: LanguageModel, count: int) -> list[int]:
    """Peak memory in KiB after each batch of a run with wide states."""
    peaks: list[int] = []

    def advance(done: int) -> None:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    trace_to(
        folder,
        model,
        some_prompts(count),
        record=Record(layers=("last", "first")),
        batch_size=16,
        shard_rows=16,
        progress=advance,
    )
    return peaks


def shards(folder: Path) -> dict[str, bytes]:
    """Every data file's bytes, unmerged ones included."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.parquet")}


def main() -> None:
    """Do what the command line says and print the outcome as JSON."""
    command, folder, *rest = sys.argv[1:]
    outcome: object
    if command == "everywhere":
        outcome = everywhere(Path(folder))
    elif command == "kill":
        outcome = kill(Path(folder), demur.load(rest[0]), int(rest[1]), float(rest[2]))
    else:
        outcome = memory(Path(folder), demur.load(rest[0]), int(rest[1]))
    sys.stdout.write(json.dumps(outcome))


if __name__ == "__main__":
    main()
