"""What bfloat16 changes: a batch against its rows alone, and against float32.

    python -m benchmarks.precision [folder ...]

prints, for the built-in models or those given, the share of 64 prompts with the same response tokens
and the largest difference of a pooled state of the first step, relative to the largest entry.
"""

from __future__ import annotations

import sys

import torch

import demur
from demur.models import load
from demur.prompts import read_prompts
from demur.types import Traces

ROWS = 8


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ["organism-ar", "organism-dlm"]:
        for title, value in measure(name).items():
            print(f"{name}: {title:<64} {value:8.4f}", flush=True)


def measure(name: str) -> dict[str, float]:
    """Title -> share in [0, 1]."""
    prompts = read_prompts("organism:test/harmful/role_play", limit=64)
    half, whole = load(name, dtype="bfloat16"), load(name, dtype="float32")
    together = demur.trace(half, prompts, batch_size=ROWS)
    alone = demur.trace(half, prompts, batch_size=1)
    exact = demur.trace(whole, prompts, batch_size=ROWS)
    return {
        f"same response, {ROWS} rows at once and one": same(together, alone),
        f"largest difference of a state, {ROWS} rows at once and one": apart(together, alone),
        "same response, bfloat16 and float32": same(together, exact),
        "largest difference of a state, bfloat16 and float32": apart(together, exact),
    }


def same(one: Traces, other: Traces) -> float:
    """Share of prompts with the same response tokens."""
    pairs = list(zip(one, other, strict=True))
    return sum(a.response_ids.tolist() == b.response_ids.tolist() for a, b in pairs) / len(pairs)


def apart(one: Traces, other: Traces) -> float:
    """Largest difference of the first step's states over the largest entry of ``other``."""
    first, second = one.phi[:, 0], other.phi[:, 0]
    return float(abs(first - second).max() / abs(second).max())


if __name__ == "__main__":
    main()
