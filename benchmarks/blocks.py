"""Block diffusion with the exact cache against recomputing everything, both batched and traced."""

from __future__ import annotations

import torch

from benchmarks import models
from benchmarks.timing import seconds
from demur.models.base import Batch, LanguageModel
from demur.sampling import Block, RowNoise, find_pooling
from demur.types import Record

LENGTH, SIZE = 32, 4


def cached(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """Our sampler: the last step's tokens."""
    sampler = Block(gen_length=LENGTH, block_length=SIZE, block_steps=SIZE, threshold=None)
    noise, pooling = RowNoise.seeded(range(len(batch.ids))), find_pooling("response")
    run = sampler.run(model, batch, Record(pooling=pooling.name), noise)
    return [step.tokens for step in run][-1]


@torch.inference_mode()
def recomputed(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """The same steps, reading prompt and response anew at each; prompts of whole blocks."""
    start, mask = batch.ids.shape[1], model.traits.mask_id
    x = torch.cat([batch.ids, torch.full((len(batch.ids), LENGTH), mask)], dim=1)
    for end in range(start + SIZE, start + LENGTH + 1, SIZE):
        blocks = torch.arange(end) // SIZE
        attention = (blocks <= blocks[:, None])[None, None].expand(len(x), -1, -1, -1)
        positions = torch.arange(end).expand(len(x), -1)
        for _ in range(SIZE):
            states = model.states(x[:, :end], attention, positions=positions)["last"]
            states[:, start:].float().mean(1)
            logits = model.logits(states[:, -SIZE:])
            logits[..., mask] = -torch.inf
            sure, chosen = logits.softmax(-1).max(-1)
            sure = sure.masked_fill(x[:, end - SIZE : end] != mask, -torch.inf)
            best = sure.argmax(1, keepdim=True)
            x[:, end - SIZE : end].scatter_(1, best, chosen.gather(1, best))
    return x[:, start:]


def measure() -> dict[str, float]:
    """Ratio of the two; see its name."""
    config = models.CONFIGS["sdar-tiny"]
    model = models.random_model(config)
    prompts = models.batch(*[300] * 8, vocabulary=config["vocab_size"])
    tokens = cached(model, prompts), recomputed(model, prompts)
    found = seconds(
        {
            "cached": lambda: cached(model, prompts),
            "recomputed": lambda: recomputed(model, prompts),
        },
        rounds=3,
    )
    return {
        "blocks: exact cache over recomputing, batch 8": found["recomputed"] / found["cached"],
        "blocks: share of equal tokens": (tokens[0] == tokens[1]).float().mean().item(),
    }
