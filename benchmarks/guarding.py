"""Cost of watching: a step's guard work alone, and beside a token of a model of 500M parameters."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.models import CONFIGS, batch, random_model
from demur.detectors.log_ratio import LogRatio
from demur.guard import CalibratedGroup, StreamingGuard
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, RowNoise
from demur.sri import Anchors
from demur.types import Fingerprint, Record, Step

STEPS = 32


def measure() -> dict[str, float]:
    """Microseconds of a step's guard work, and its share of a token's time."""
    figures: dict[str, float] = {}
    for width in (1280, 4096):
        guard = random_guard(width)
        one, many = work(guard, 1, width), work(guard, 64, width, apart=True)
        figures[f"streaming guard: microseconds a step at batch 1, width {width}"] = one
        figures[f"streaming guard: microseconds a row at batch 64, width {width}"] = many / 64
    return figures | beside_a_model()


def random_guard(width: int) -> StreamingGuard:
    """A guard that never flags, with random anchors."""
    harmless, harmful = np.random.default_rng(0).normal(size=(2, STEPS, width)).astype(np.float32)
    mark = Fingerprint("random-llama", "0", {"name": "autoregressive"}, "running", "", "float32")
    level = np.ones(STEPS, dtype=np.float32)
    return StreamingGuard(
        detector=LogRatio(name="sri-step", anchors=Anchors(harmless, harmful)),
        groups={"all": CalibratedGroup(1e9, np.zeros(100, dtype=np.float32))},
        alpha=0.01,
        method="conformal",
        fingerprint=mark,
        middle=-level,
        spread=level,
    )


def work(guard: StreamingGuard, rows: int, width: int, *, apart: bool = False) -> float:
    """Median microseconds of one ``observe``; ``apart`` puts rows at different steps."""
    phi = {"last": torch.randn(rows, width, generator=torch.Generator().manual_seed(0))}
    watcher = guard.watcher(rows)
    if apart:
        for row in range(rows):
            for _ in range(row % 8):
                watcher.observe({"last": phi["last"][row : row + 1]}, [row])
    times = []
    for _ in range(STEPS - 8):
        start = time.perf_counter()
        watcher.observe(phi, range(rows))
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6


def beside_a_model() -> dict[str, float]:
    """Median guard work of a step as a share of the median time of making it, in one run."""
    model = random_model(CONFIGS["llama-500m"])
    making: list[float] = []
    watching: list[float] = []
    for _ in range(2):
        for _ in random_guard(1280).watch(timed(generate(model), making, watching)):
            pass
    share = float(np.median(watching) / np.median(making))
    return {"streaming guard: percent of a token's time, 500M": share * 100}


def generate(model: LanguageModel) -> Iterator[Step]:
    """Sixteen tokens after a prompt of 32."""
    return Autoregressive(steps=16).run(
        model,
        batch(32, vocabulary=CONFIGS["llama-500m"]["vocab_size"]),
        Record(pooling="running"),
        RowNoise.seeded([0]),
    )


def timed(steps: Iterator[Step], making: list[float], watching: list[float]) -> Iterator[Step]:
    """The steps, noting the seconds that each took to make and that its consumer took."""
    while True:
        start = time.perf_counter()
        step = next(steps, None)
        made = time.perf_counter()
        if step is None:
            return
        yield step
        watched = time.perf_counter()
        making.append(made - start)
        watching.append(watched - made)
