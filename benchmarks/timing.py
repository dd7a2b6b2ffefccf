"""Time two or more ways of doing the same thing, in turns, so that noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def seconds(ways: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Median seconds of each way over rounds; one untimed round first."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn:
                found[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in found.items()}
