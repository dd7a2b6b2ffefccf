"""Workers of a Ray cluster beside each other: rows a second of two against one, a thread each.

python -m benchmarks.cluster

On a machine with other work the clock measures that work. So each worker's wait for a core, which Linux
counts, is taken off its time; what is left is its computing and its waiting for windows. Both rates are
kept: by the clock, and with the wait for cores taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.machine import machine
from demur import cluster
from demur.types import Prompt

ROWS = 16
#: Seconds of computing by which a worker has certainly traced a window.
WARM = 10.0


#: Process and thread -> nanoseconds that it computed, and that it waited for a core.
Used = dict[int, dict[int, tuple[int, int]]]


def used() -> Used:
    """What every worker's threads have used so far."""
    found: Used = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # a process that has ended since, or no process at all
            if b"ray::MapWorker" in (entry / "cmdline").read_bytes():
                threads = entry.glob("task/*/schedstat")
                lines = {int(path.parent.name): path.read_text().split() for path in threads}
                found[int(entry.name)] = {t: (int(x[0]), int(x[1])) for t, x in lines.items()}
    return found


def between(first: Used, last: Used) -> tuple[float, float]:
    """Seconds that the workers computed, and that their computing threads waited for a core."""
    spent = []
    for worker, threads in last.items():
        none = dict.fromkeys(threads, (0, 0)) | first[worker]
        found = [(now[0] - none[t][0], now[1] - none[t][1]) for t, now in threads.items()]
        most = sum(one[0] for one in found)
        # Ray's own threads wait too, beside the one that computes: theirs is no time of the worker's.
        spent += [one for one in found if one[0] > most / 20]
    return sum(one[0] for one in spent) / 1e9, sum(one[1] for one in spent) / 1e9


def _warm(threads: dict[int, tuple[int, int]]) -> bool:
    """Whether a worker has computed so long that its model is loaded."""
    return sum(computed for computed, _ in threads.values()) > WARM * 1e9


def rates(workers: int, windows: int) -> dict[str, float]:
    """Rows a second from when every worker is warm to the last window but one."""
    prompts = [Prompt(f"how do i bake cake {i}") for i in range(windows * ROWS)]
    finished: list[tuple[float, Used]] = []
    with tempfile.TemporaryDirectory() as folder:
        cluster.trace_to(
            Path(folder) / "run",
            "organism-dlm",
            prompts,
            workers=workers,
            shard_rows=ROWS,
            progress=lambda done: finished.append((time.perf_counter(), used())),
        )
    # The pool begins with one worker, and each loads its model first. The last window but one is the
    # end: with the last one a worker has nothing left to do.
    warm = [
        n
        for n, (_, now) in enumerate(finished)
        if len(now) == workers and all(map(_warm, now.values()))
    ]
    if len(warm) < windows // 2:
        raise SystemExit(
            f"{len(warm)} of {windows} windows had {workers} workers: give more --windows."
        )
    (began, first), (ended, last) = finished[warm[0]], finished[warm[-2]]
    rows, seconds = (warm[-2] - warm[0]) * ROWS, ended - began
    busy, delay = between(first, last)
    return {
        "by the clock": rows / seconds,
        "without the wait for cores": rows / (seconds - delay / workers),
        "of a second of computing": rows / busy,
    }


def main() -> None:
    """Measure in turns, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    chosen = parser.parse_args()
    rounds = []
    for _ in range(chosen.rounds):
        one, two = (rates(workers, chosen.windows) for workers in (1, 2))
        gained = {name: two[name] / one[name] / 2 for name in list(one)[:2]}
        load = round(os.getloadavg()[0], 1)
        rounds.append({"one": one, "two": two, "efficiency": gained, "load": load})
        print(json.dumps(rounds[-1]), flush=True)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "efficiency, median": {
            name: median(one["efficiency"][name] for one in rounds)
            for name in rounds[0]["efficiency"]
        },
        "rows a second": rounds,
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "cluster.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
