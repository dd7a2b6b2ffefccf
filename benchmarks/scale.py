"""Tracing at size: random weights under any config that demur knows, against not tracing.

On a CPU use a small shape. On a GPU, for the published 7B and 8B shapes:

    for shape in llama-3.1-8b llada-8b dream-7b; do
        python -m benchmarks.scale --shape $shape --device cuda --dtype bfloat16 --batch 1 8 64
    done

``--shape`` takes a path to a config.json too. The family's own code reads the config, chooses the
sampler and makes the network. Not tracing is transformers' ``generate`` for autoregressive models; for
the others it is the same steps without pooling and recording, and for LLaDA also the loop that restates
its ``generate.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import demur
from benchmarks import llada, models
from benchmarks.machine import machine
from benchmarks.timing import seconds
from benchmarks.tracing import plain_generate
from demur.models.base import Batch, LanguageModel
from demur.sampling import RowNoise, Sampler, find_pooling, sampler_from
from demur.sampling.fitting import peak_memory
from demur.sri import Anchors
from demur.types import Record, Step

PROMPT = 128


def limits(device: str, dtype: torch.dtype) -> tuple[float, float]:
    """What the machine does at best here: bytes a second copied, operations a second multiplied."""
    on_gpu = device.startswith("cuda")
    size = 4096 if on_gpu else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    wide = torch.empty((1 << 30) if on_gpu else (1 << 28), dtype=torch.uint8, device=device)
    target = torch.empty_like(wide)
    timed = seconds(
        {"copy": lambda: target.copy_(wide), "multiply": lambda: a @ a}, rounds=5, device=device
    )
    return 2 * wide.numel() / timed["copy"], 2 * size**3 / timed["multiply"]


def generated(
    model: LanguageModel, sampler: Sampler, batch: Batch, *, layers: tuple[str, ...]
) -> list[Step]:
    """Every step, with the pooled states of these layers brought to the host."""
    pooling = find_pooling(model.traits.pooling)
    noise = RowNoise.seeded(range(len(batch.ids)))
    steps = list(sampler.run(model, batch, Record(layers=layers, pooling=pooling.name), noise))
    for layer in layers:
        torch.stack([step.phi[layer] for step in steps]).cpu()
    return steps


def measure(model: LanguageModel, sampler: Sampler, rows: int, *, device: str) -> dict[str, float]:
    """Tokens a second, overhead of tracing in %, memory, and the guard's share of a step in %."""
    vocabulary = model.net.get_input_embeddings().weight.shape[0]
    prompts = models.batch(*[PROMPT] * rows, vocabulary=vocabulary, device=device)
    ways: dict[str, Callable[[], object]] = {
        "traced": lambda: generated(model, sampler, prompts, layers=("last",))
    }
    if model.traits.attention == "causal":
        ways["generate"] = lambda: plain_generate(model, prompts)
    else:
        ways["the same steps"] = lambda: generated(model, sampler, prompts, layers=())
    if model.traits.family == "llada":
        ways["generate.py restated"] = lambda: llada.restated(model, prompts, sampler.steps)
    forget_peak(device)
    steps = generated(model, sampler, prompts, layers=("last",))
    peak = peak_memory(model.device)
    timed = seconds(ways, rounds=3, device=device)
    traced = timed.pop("traced")
    found = {
        "batch": rows,
        "tokens a second, traced": rows * sampler.new_tokens / traced,
        **{f"percent more than {name}": 100 * (traced / t - 1) for name, t in timed.items()},
        "guard in % of a step": 100 * _guard_seconds(model, rows) / (traced / len(steps)),
        "seconds a step, traced": traced / len(steps),
        "peak memory in GiB": peak,
    }
    if model.traits.attention in ("block", "canvas"):
        return found
    return found | {"operations a step": operations(model, steps) / len(steps)}


def operations(model: LanguageModel, steps: list[Step]) -> float:
    """Two a weight and position read, the head's only where logits are needed.

    Attention's own are left out, and so are the weights of an embedding, which is looked up. For
    models that read one token a step, or everything at each step, and have no experts.
    """
    head = model.net.get_output_embeddings().weight
    looked_up = model.net.get_input_embeddings().weight
    both = {id(w): w.numel() for w in (head, looked_up)}
    body = sum(p.numel() for p in model.net.parameters()) - sum(both.values())
    rows, length = steps[0].tokens.shape
    if model.traits.attention == "causal":
        read, asked = rows * (PROMPT + len(steps) - 1), rows * len(steps)
    else:
        read = rows * len(steps) * (PROMPT + length)
        committed = sum(int((step.tokens >= 0).sum()) for step in steps[:-1])
        asked = rows * length * len(steps) - committed
    return 2.0 * (body * read + head.numel() * asked)


def forget_peak(device: str) -> None:
    """Let the next peak of memory be counted from here."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif (resets := Path("/proc/self/clear_refs")).exists():
        resets.write_text("5")


def _guard_seconds(model: LanguageModel, rows: int) -> float:
    """Signal and score of one step of each row."""
    width = model.net.get_input_embeddings().weight.shape[1]
    generator = np.random.default_rng(0)
    anchors = Anchors(*generator.normal(size=(2, 1, width)).astype(np.float32))
    benign = generator.uniform(0.8, 1, size=(400, 32)).astype(np.float32)
    guard = demur.fit_guard(benign[:200], benign[200:])
    states = generator.normal(size=(rows, 1, width)).astype(np.float32)
    start = time.process_time()
    for _ in range(200):
        demur.signal(states, anchors)
        guard.score(benign[:rows])
    return (time.process_time() - start) / 200


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="llama-small", help="a name in models.CONFIGS or a path")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    dtype, device = getattr(torch, chosen.dtype), chosen.device
    copied, multiplied = limits(device, dtype)
    model = models.random_model(models.config_of(chosen.shape), dtype=dtype, device=device)
    sampler = sampler_from(model.traits.sampler)
    weights = sum(p.numel() * p.element_size() for p in model.net.parameters())
    rows = []
    for size in chosen.batch:
        found = measure(model, sampler, size, device=device)
        step = found["seconds a step, traced"]
        found["share of bandwidth in %, weights read once"] = 100 * weights / step / copied
        if done := found.get("operations a step"):
            found["share of arithmetic in %"] = 100 * done / step / multiplied
        print(found, flush=True)
        rows.append(found)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "shape": Path(chosen.shape).stem,
        "family": model.traits.family,
        "sampler": dict(model.traits.sampler),
        "dtype": chosen.dtype,
        "bytes a second copied": copied,
        "operations a second multiplied": multiplied,
        "batches": rows,
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    name = f"scale-{Path(chosen.shape).stem}-{device.split(':')[0]}.json"
    (chosen.out / name).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
