"""Run every benchmark and write one results file that names the machine."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import blocks, guarding, scoring, serving, tracing
from benchmarks.machine import machine


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    out = parser.parse_args().out
    results = {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    for part in (scoring, guarding, tracing, blocks, serving):
        figures = part.measure()
        results[part.__name__.split(".")[-1]] = figures
        for name, value in figures.items():
            print(f"{name:<55} {value:10.3f}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    kind = "gpu" if torch.cuda.is_available() else "cpu"
    (out / f"{kind}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
