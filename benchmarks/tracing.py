"""Tracing against the reference algorithm, and against generating without any tracing."""

from __future__ import annotations

import torch
from transformers import GenerationConfig

from benchmarks import llada, models
from benchmarks.timing import seconds
from demur.models.base import Batch, LanguageModel
from demur.sampling import Autoregressive, RowNoise, find_pooling
from demur.types import Record, Step

STEPS = 32


@torch.no_grad()
def reference_autoregressive(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """The reference algorithm: no cache, every layer's states, one prompt at a time."""
    collected = []
    for ids in batch.ids:
        sequence, states = ids[None], []
        for _ in range(STEPS):
            output = model.net(input_ids=sequence, output_hidden_states=True, use_cache=False)
            states.append(torch.stack(output.hidden_states).squeeze(1)[:, -1])
            token = output.logits[:, -1].argmax(-1, keepdim=True)
            token.item()
            sequence = torch.cat([sequence, token], dim=1)
        sums = torch.stack(states).cumsum(0)
        collected.append((sums / torch.arange(1, STEPS + 1).view(-1, 1, 1))[:, -1])
    return torch.stack(collected)


def plain_generate(model: LanguageModel, batch: Batch) -> torch.Tensor:
    """transformers' own greedy generate, batched, no tracing."""
    settings = GenerationConfig(max_new_tokens=STEPS, do_sample=False, pad_token_id=0)
    mask = batch.attention.long()
    return model.net.generate(batch.ids, attention_mask=mask, generation_config=settings)


def traced(model: LanguageModel, batch: Batch) -> list[Step]:
    """Every step with its pooled last-layer states."""
    noise, pooling = RowNoise.seeded(range(len(batch.ids))), find_pooling("running")
    run = Autoregressive(steps=STEPS).run(model, batch, Record(pooling=pooling.name), noise)
    return list(run)


def measure() -> dict[str, float]:
    """Ratios of tracing; see each name."""
    return autoregressive() | masked() | overhead()


def autoregressive() -> dict[str, float]:
    """Against the reference algorithm, whose states are the same numbers, and against generate."""
    config = models.CONFIGS["llama-small"]
    model = models.random_model(config)
    prompts = models.batch(*[300] * 8, vocabulary=config["vocab_size"])
    steps = traced(model, prompts)
    expected = plain_generate(model, prompts)[:, 300:]
    assert torch.equal(steps[-1].tokens, expected), "tokens differ from generate"
    states = torch.stack([step.phi["last"] for step in steps], dim=1)
    worst = (states - reference_autoregressive(model, prompts)).abs().max().item()
    assert worst < 1e-4, f"states differ from the reference by {worst}"
    slow = seconds(
        {
            "reference": lambda: reference_autoregressive(model, prompts),
            "traced": lambda: traced(model, prompts),
        },
        rounds=1,
    )
    fast = seconds(
        {
            "generate": lambda: plain_generate(model, prompts),
            "traced": lambda: traced(model, prompts),
        },
        rounds=7,
    )
    return {
        "AR: times faster than the reference algorithm": slow["reference"] / slow["traced"],
        "AR: share of plain generate's time": fast["traced"] / fast["generate"],
    }


def masked() -> dict[str, float]:
    """Against the plain loop with the same batch."""
    model = models.random_model(models.CONFIGS["llada-share"])
    prompts = models.batch(*[100] * 8, vocabulary=model.net.config.vocab_size)
    timed = seconds(
        {
            "plain": lambda: llada.restated(model, prompts, llada.STEPS),
            "traced": lambda: llada.traced(model, prompts),
        },
        rounds=2,
    )
    return {"masked: share of a plain untraced loop's time": timed["traced"] / timed["plain"]}


def overhead() -> dict[str, float]:
    """Tracing a Llama of 500M parameters, against generate."""
    config = models.CONFIGS["llama-500m"]
    model = models.random_model(config)
    found = {}
    for rows in (1, 8):
        prompts = models.batch(*[32] * rows, vocabulary=config["vocab_size"])
        timed = seconds(
            {
                "generate": lambda prompts=prompts: plain_generate(model, prompts),
                "traced": lambda prompts=prompts: traced(model, prompts),
            },
            rounds=5,
        )
        more = 100 * (timed["traced"] / timed["generate"] - 1)
        found[f"AR: percent more than generate, 500M, batch {rows}"] = more
    return found
