"""The signal against the per-step loop, the guard's score of one generation, the refusal rules."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import demur
from benchmarks.timing import seconds
from demur.judges import refusal
from demur.sri import Anchors

RESPONSES = Path(__file__).parents[1] / "tests/data/refusals.jsonl"


def loop_signal(phi: torch.Tensor, harmless: torch.Tensor, harmful: torch.Tensor) -> torch.Tensor:
    """The reference algorithm: a trace and a step at a time, a number at a time."""
    signals = []
    for trace in phi:
        values = []
        for state, good, bad in zip(trace, harmless, harmful, strict=True):

            def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
                return 1 - torch.dot(a / (a.norm() + 1e-8), b / (b.norm() + 1e-8))

            ratio = torch.log(distance(state, bad) + 1e-8) - torch.log(distance(state, good) + 1e-8)
            values.append(torch.sigmoid(ratio / 0.1).item())
        signals.append(torch.tensor(values))
    return torch.stack(signals)


def measure() -> dict[str, float]:
    """Ratios of the signal, time of the guard, pace of the rules, seconds of the command line."""
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(400, 32, 4096, generator=generator)
    harmless, harmful = torch.randn(2, 32, 4096, generator=generator)
    anchors = Anchors(harmless.numpy(), harmful.numpy())
    states = phi.numpy()
    gap = np.abs(demur.signal(states, anchors) - loop_signal(phi, harmless, harmful).numpy()).max()
    assert gap < 1e-4, f"signals differ by {gap}"
    found = seconds(
        {
            "loop": lambda: loop_signal(phi, harmless, harmful),
            "signal": lambda: demur.signal(states, anchors),
        },
        rounds=3,
    )
    benign = np.random.default_rng(0).uniform(0.8, 1, size=(400, 32)).astype(np.float32)
    guard = demur.fit_guard(benign[:200], benign[200:])
    one, many = benign[:1], benign[:64]
    scoring = seconds(
        {
            "one": lambda: [guard.score(one) for _ in range(1000)],
            "many": lambda: [guard.score(many) for _ in range(1000)],
        },
        rounds=5,
    )
    return {
        "signal: times faster than the per-step loop": found["loop"] / found["signal"],
        "guard: microseconds a score at batch 1": scoring["one"] * 1e3,
        "guard: microseconds a row at batch 64": scoring["many"] * 1e3 / 64,
        "refusal rules: judgements a second": judgements_a_second(),
        "demur --help: seconds": _help_seconds(),
    }


def judgements_a_second() -> float:
    """The rules on every hand-labelled response, on one core."""
    rows = [json.loads(line) for line in RESPONSES.read_text().splitlines()]
    rules = refusal.RefusalRules()
    judged = seconds(
        {"all": lambda: [rules(row["goal"], row["response"]) for row in rows]}, rounds=5
    )
    return len(rows) / judged["all"]


def _help_seconds(rounds: int = 5) -> float:
    command = [sys.executable, "-c", "from demur.cli import main; main()", "--help"]
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return sorted(times)[rounds // 2]
