"""Tracing at size: random weights of a published shape, against generating without tracing.

On a CPU use a small shape; on a GPU:

    python -m benchmarks.scale --shape llama-3.1-8b --device cuda --dtype bfloat16 --batch 1 8 64
    python -m benchmarks.scale --shape llada-8b --device cuda --dtype bfloat16 --batch 1 8 64
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import demur
from benchmarks import models
from benchmarks.machine import machine
from benchmarks.timing import seconds
from benchmarks.tracing import STEPS, plain_generate, plain_llada, traced
from demur.models.base import LanguageModel
from demur.sampling import Autoregressive, Masked
from demur.sampling.fitting import peak_memory
from demur.sri import Anchors

PROMPT, RESPONSE = 128, 128


def limits(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """What the machine does at best here: bytes a second copied, operations a second multiplied."""
    size = 4096 if device == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    wide = torch.empty(
        (1 << 30) if device == "cuda" else (1 << 28), dtype=torch.uint8, device=device
    )
    target = torch.empty_like(wide)
    timed = seconds(
        {
            "copy": lambda: _synced(lambda: target.copy_(wide), device),
            "multiply": lambda: _synced(lambda: a @ a, device),
        },
        rounds=5,
    )
    return 2 * wide.numel() / timed["copy"], 2 * size**3 / timed["multiply"]


def measure(model: LanguageModel, rows: int, *, masked: bool, device: str) -> dict[str, float]:
    """Tokens a second, overhead of tracing in %, memory, and the guard's share of a step in %."""
    prompts = models.batch(rows, PROMPT, device=device)
    sampler = Masked(steps=STEPS, gen_length=RESPONSE, block_length=RESPONSE)
    if masked:
        ways = {
            "plain": lambda: _synced(lambda: plain_llada(model, prompts), device),
            "traced": lambda: _synced(lambda: traced(model, prompts, sampler), device),
        }
    else:
        greedy = Autoregressive(steps=STEPS)
        ways = {
            "plain": lambda: _synced(lambda: plain_generate(model, prompts), device),
            "traced": lambda: _synced(lambda: traced(model, prompts, greedy), device),
        }
    timed = seconds(ways, rounds=3)
    tokens = rows * (RESPONSE if masked else STEPS)
    return {
        "batch": rows,
        "tokens a second, traced": tokens / timed["traced"],
        "overhead of tracing in %": 100 * (timed["traced"] / timed["plain"] - 1),
        "guard in % of a step": 100 * _guard_seconds(model, rows) / (timed["traced"] / STEPS),
        "seconds a step, traced": timed["traced"] / STEPS,
        "peak memory in GiB": peak_memory(model.device),
    }


def shares(
    model: LanguageModel, found: dict[str, float], best: tuple[float, float], *, masked: bool
) -> dict[str, float]:
    """The step's share of the machine's limits: weights read once, two operations a weight a token."""
    parameters = sum(p.numel() for p in model.net.parameters())
    positions = found["batch"] * ((PROMPT + RESPONSE) if masked else 1)
    element = next(model.net.parameters()).element_size()
    step = found["seconds a step, traced"]
    return {
        "share of bandwidth in %": 100 * parameters * element / step / best[0],
        "share of arithmetic in %": 100 * 2 * parameters * positions / step / best[1],
    }


def _guard_seconds(model: LanguageModel, rows: int) -> float:
    """Signal and score of one step of each row."""
    width = model.net.config.hidden_size
    generator = np.random.default_rng(0)
    anchors = Anchors(*generator.normal(size=(2, 1, width)).astype(np.float32))
    benign = generator.uniform(0.8, 1, size=(400, STEPS)).astype(np.float32)
    guard = demur.fit_guard(benign[:200], benign[200:])
    states = generator.normal(size=(rows, 1, width)).astype(np.float32)
    start = time.perf_counter()
    for _ in range(200):
        demur.signal(states, anchors)
        guard.score(benign[:rows])
    return (time.perf_counter() - start) / 200


def _synced(work: object, device: str) -> object:
    result = work()  # type: ignore[operator]
    if device == "cuda":
        torch.cuda.synchronize()
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=models.SHAPES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    chosen = parser.parse_args()
    dtype, device = getattr(torch, chosen.dtype), chosen.device
    best = limits(device, dtype)
    results: dict[str, object] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "shape": chosen.shape,
        "dtype": chosen.dtype,
        "bytes a second copied": best[0],
        "operations a second multiplied": best[1],
    }
    for masked in (False, True):
        if (chosen.shape == "llama-3.1-8b" and masked) or (
            chosen.shape in ("llada-8b", "dream-7b") and not masked
        ):
            continue
        model = models.llama(masked=masked, shape=chosen.shape, dtype=dtype, device=device)
        rows = []
        for size in chosen.batch:
            found = measure(model, size, masked=masked, device=device)
            rows.append(found | shares(model, found, best, masked=masked))
            print("masked" if masked else "autoregressive", rows[-1], flush=True)
        results["masked" if masked else "autoregressive"] = rows
        del model
    chosen.out.mkdir(parents=True, exist_ok=True)
    name = f"scale-{chosen.shape}-{device.split(':')[0]}.json"
    (chosen.out / name).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
