"""Time two or more ways of doing the same thing, in turns, so that noise hits all alike.

On a CPU it is the process's own time on one core that counts, into which nothing else that the machine
does enters; on a GPU the time that passes until the GPU is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch


def seconds(
    ways: dict[str, Callable[[], object]], *, rounds: int, device: str = "cpu"
) -> dict[str, float]:
    """Median seconds of each way over rounds; one untimed round first."""
    on_gpu = device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if on_gpu:
                torch.cuda.synchronize(device)
            if turn:
                found[name].append(clock() - start)
    return {name: median(values) for name, values in found.items()}
