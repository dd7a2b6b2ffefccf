"""Run every benchmark and write one results file that names the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

from benchmarks import blocks, scoring, tracing


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    out = parser.parse_args().out
    results = {"date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    for part in (scoring, tracing, blocks):
        figures = part.measure()
        results[part.__name__.split(".")[-1]] = figures
        for name, value in figures.items():
            print(f"{name:<55} {value:10.3f}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    kind = "gpu" if torch.cuda.is_available() else "cpu"
    (out / f"{kind}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
