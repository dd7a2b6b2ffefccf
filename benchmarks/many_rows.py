"""The store at 10^7 rows: seconds to write, list, resume and filter a run of tiny traces.

python -m benchmarks.many_rows --rows 10000000 --shard-rows 4096
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.machine import machine
from demur.runs import list_runs
from demur.store import Store, writing
from demur.store.folder import folder_at
from demur.store.manifest import Manifest
from demur.store.rows import to_table, write_rows
from demur.types import Fingerprint, Prompt, Trace

MARK = Fingerprint("m", "r", {"name": "masked", "steps": 2}, "response", "", "float32")


def a_trace(index: int) -> Trace:
    """Two steps, four tokens, states of four numbers: metadata and little else."""
    dice = np.random.default_rng(index)
    return Trace(
        prompt=Prompt(f"ask {index}", id=f"p{index}", attack="none"),
        response=f"answer {index}",
        response_ids=np.arange(4, dtype=np.int32),
        committed=np.zeros((2, 4), np.int32),
        draft=np.zeros((2, 4), np.int32),
        phi={"last": dice.normal(size=(2, 4)).astype(np.float32)},
        finish_reason="stop",
        blocks=np.zeros(2, np.int32),
        fingerprint=MARK,
    )


def write(folder: Path, manifest: Manifest) -> None:
    """Every shard: one window's bytes again and again, and one whose rows are rare."""
    place, rows = folder_at(folder), manifest.shard_rows
    common = to_table(range(rows), [a_trace(i) for i in range(rows)])
    rare = common.set_column(
        common.schema.get_field_index("attack"), "attack", pa.array(["rare"] * rows)
    )
    with writing(folder, manifest):
        name = write_rows(place, "traces", 0, common, range(rows))
        content, ending = place.read(name), name.rpartition("-")[2]
        for window in manifest.windows()[1:-1]:
            (folder / "traces" / f"{window:06d}-{ending}").write_bytes(content)
        write_rows(place, "traces", manifest.windows()[-1], rare, range(rows))


def resume(folder: Path, manifest: Manifest) -> int:
    """Rows that a start finds done: every shard is hashed."""
    with writing(folder, manifest) as writer:
        return sum(len(writer.done(window)) for window in manifest.windows())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2442 * 4096)
    parser.add_argument("--shard-rows", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    chosen = parser.parse_args()
    manifest = Manifest(MARK, ("last",), 0, "hash", chosen.rows, chosen.shard_rows)
    found: dict[str, object] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "rows": chosen.rows,
        "shards": len(manifest.windows()),
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        rare = {"attack": "rare"}
        works: dict[str, Callable[[], object]] = {
            "write": lambda: write(folder, manifest),
            "list (demur ls)": lambda: list_runs(place)[0].written,
            "resume": lambda: resume(folder, manifest),
            "filter one shard's rows": lambda: sum(
                1 for _ in Store.open(folder).traces(where=rare)
            ),
            "every id": lambda: len(Store.open(folder).ids()),
        }
        for name, work in works.items():
            start, busy = time.perf_counter(), time.process_time()
            rows = work()
            found[f"seconds to {name}"] = round(time.perf_counter() - start, 2)
            found[f"of them on a core: {name}"] = round(time.process_time() - busy, 2)
            print(name, rows, [*found.values()][-2:], flush=True)
        files = list((folder / "traces").iterdir())
        found["bytes"] = sum(path.stat().st_size for path in files)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "many_rows.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
