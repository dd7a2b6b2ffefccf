"""Run every benchmark on one core and write one results file that names the machine.

Half an hour on a quiet core. ``--only scoring`` runs one part, prints and writes nothing.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch

from benchmarks import blocks, guarding, llada, scoring, serving, tracing
from benchmarks.machine import machine


def main() -> None:
    """Measure, print, write."""
    names = ("scoring", "guarding", "tracing", "llada", "blocks", "serving")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--only", choices=names)
    parser.add_argument("--llada", type=Path, help="a checkout of github.com/ML-GSAI/LLaDA")
    chosen = parser.parse_args()
    # More threads would mix the waiting of one for another into the ratios.
    torch.set_num_threads(1)
    against = partial(llada.measure, chosen.llada)
    parts = (
        *(scoring.measure, guarding.measure, tracing.measure),
        *(against, blocks.measure, serving.measure),
    )
    results = {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    for name, part in zip(names, parts, strict=True):
        if chosen.only in (None, name):
            results[name] = figures = part()
            for title, value in figures.items():
                print(f"{title:<100} {value:10.3f}", flush=True)
    if chosen.only is None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "cpu.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
