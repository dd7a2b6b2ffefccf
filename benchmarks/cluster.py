"""Workers of a Ray cluster beside each other: rows a second of two against one, a thread each.

python -m benchmarks.cluster
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.machine import machine
from demur import cluster
from demur.types import Prompt

ROWS = 16


def rows_a_second(workers: int, windows: int) -> float:
    """Pace between the first window done by each worker and the last one, start-up left out."""
    prompts = [Prompt(f"how do i bake cake {i}") for i in range(windows * ROWS)]
    finished: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        cluster.trace_to(
            Path(folder) / "run",
            "organism-dlm",
            prompts,
            workers=workers,
            shard_rows=ROWS,
            progress=lambda done: finished.append(time.perf_counter()),
        )
    # The pool begins with one worker; the last third of the windows had all of them.
    tail = finished[2 * windows // 3 :]
    return (len(tail) - 1) * ROWS / (tail[-1] - tail[0])


def main() -> None:
    """Measure in turns, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    chosen = parser.parse_args()
    rounds = []
    for _ in range(chosen.rounds):
        one, two = (rows_a_second(workers, chosen.windows) for workers in (1, 2))
        rounds.append({"one": one, "two": two, "efficiency": two / one / 2})
        print(rounds[-1], f"load {os.getloadavg()[0]:.1f}", flush=True)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "rows a second": rounds,
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "cluster.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
