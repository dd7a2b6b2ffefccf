"""LLaDA traced eight prompts at a time, against upstream's ``generate`` a prompt at a time.

Upstream is ``generate.py`` of the checkout that ``--llada`` names (github.com/ML-GSAI/LLaDA), else the
loop below, which restates it; both run the very network that is traced, so the ratio is the
sampler's. Both ways read every position at every step. What tracing leaves out is the head at
positions that are not masked, so the ratio ends at 1 / (1 - the head's share of the work). On a CPU
larger matrices gain nothing more at such lengths, and a batch of unlike lengths loses what its padding
takes; ``trace`` sorts prompts by length, so that this is a batch's worst case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import models
from benchmarks.timing import seconds
from demur.models.base import Batch, LanguageModel
from demur.sampling import Masked, RowNoise, find_pooling
from demur.types import Record, Step

#: Paper settings: 128 positions; ``STEPS`` steps of 16 commits take the same work a step as 32 of 4.
LENGTH, STEPS, ROWS = 128, 8, 8
RAGGED = (50, 86, 121, 157, 193, 229, 264, 300)

Generate = Callable[[LanguageModel, Batch, int], Tensor]


def traced(model: LanguageModel, batch: Batch, steps: int = STEPS) -> list[Step]:
    """Every step with its pooled last-layer states."""
    sampler = Masked(steps=steps, gen_length=LENGTH, block_length=LENGTH)
    pooling, noise = find_pooling("response"), RowNoise.seeded(range(len(batch.ids)))
    return list(sampler.run(model, batch, Record(pooling=pooling.name), noise))


@torch.no_grad()
def restated(model: LanguageModel, batch: Batch, steps: int) -> Tensor:
    """Upstream's loop without tracing: logits of every position, softmax, top-k a row."""
    ids, mask = batch.ids, model.traits.mask_id
    x = torch.cat([ids, ids.new_full((len(ids), LENGTH), mask)], dim=1)
    everywhere = ids.new_ones((len(x), 1, x.shape[1], x.shape[1]), dtype=torch.bool)
    for _ in range(steps):
        waiting = x == mask
        logits = model.net(input_ids=x, attention_mask=everywhere, use_cache=False).logits
        chosen = logits.argmax(-1)
        sure = logits.softmax(-1).gather(-1, chosen[..., None])[..., 0]
        sure = sure.masked_fill(~waiting, -torch.inf)
        for row in range(len(x)):
            best = sure[row].topk(LENGTH // steps).indices
            x[row, best] = chosen[row, best]
    return x


def upstream(checkout: Path) -> Generate:
    """``generate`` of a checkout, as it stands there."""
    names: dict[str, Any] = {"__name__": "llada_generate"}
    source = checkout / "generate.py"
    exec(compile(source.read_text(), str(source), "exec"), names)

    def generate(model: LanguageModel, batch: Batch, steps: int) -> Tensor:
        def network(x: Tensor, attention_mask: Tensor | None) -> Any:
            everywhere = x.new_ones((len(x), 1, x.shape[1], x.shape[1]), dtype=torch.bool)
            return model.net(input_ids=x, attention_mask=everywhere, use_cache=False)

        called = type("Network", (), {"device": model.device, "__call__": staticmethod(network)})()
        found: Tensor = names["generate"](
            called,
            batch.ids,
            steps=steps,
            gen_length=LENGTH,
            block_length=LENGTH,
            mask_id=model.traits.mask_id,
        )
        return found

    return generate


def alone(batch: Batch) -> list[Batch]:
    """Each prompt in a batch of its own, without padding."""
    rows = [ids[kept] for ids, kept in zip(batch.ids, batch.attention, strict=True)]
    return [Batch(r[None], torch.ones_like(r[None], dtype=torch.bool), ((),)) for r in rows]


def ratio(
    shape: str, lengths: Sequence[int], generate: Generate, *, steps: int = STEPS, rounds: int = 2
) -> tuple[float, float]:
    """Times faster, and the share of tokens that are the same."""
    model = models.random_model(models.CONFIGS[shape])
    together = models.batch(*lengths, vocabulary=model.net.config.vocab_size)
    singles = alone(together)
    ours = traced(model, together, steps)[-1].tokens
    theirs = torch.cat([generate(model, one, steps)[:, -LENGTH:] for one in singles])
    timed = seconds(
        {
            "alone": lambda: [generate(model, one, steps) for one in singles],
            "traced": lambda: traced(model, together, steps),
        },
        rounds=rounds,
    )
    return timed["alone"] / timed["traced"], (ours == theirs).float().mean().item()


def measure(checkout: Path | None = None) -> dict[str, float]:
    """Ratios by prompt length and by the head's share of the weights; see each name."""
    generate = upstream(checkout) if checkout else restated
    against = "upstream generate.py" if checkout else "a loop that restates generate.py"
    found: dict[str, float] = {}
    for words, lengths in {
        "50 tokens": (50,) * ROWS,
        "300 tokens": (300,) * ROWS,
        "50 to 300 tokens in one batch": RAGGED,
    }.items():
        name = f"LLaDA: batch 8 over {against} alone, 6.5% in the head, prompts of {words}"
        # Random weights give near-equal confidences, whose order rounding may swap; on models with
        # gaps between them the tests hold every token equal.
        found[name], found[f"{name}: share of equal tokens"] = ratio(
            "llada-share", lengths, generate
        )
    name = f"LLaDA: batch 8 over {against} alone, 42% in the head, prompts of 300 tokens"
    found[name] = ratio("llada-head", (300,) * ROWS, generate, steps=2, rounds=1)[0]
    return found
