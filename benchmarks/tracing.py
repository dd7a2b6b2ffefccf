"""Tracing against the reference algorithm, and against generating without any tracing."""

from __future__ import annotations

import torch
from transformers import GenerationConfig

from benchmarks import models
from benchmarks.timing import seconds
from demur.models.base import Batch, LanguageModel
from demur.sampling import Autoregressive, Masked, RowNoise, find_pooling

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


def one_by_one(model: LanguageModel, batch: Batch, *, steps: int = STEPS) -> list[torch.Tensor]:
    """The plain LLaDA-style loop as it is used upstream: a prompt at a time."""
    pairs = zip(batch.ids.split(1), batch.attention.split(1), strict=True)
    return [plain_llada(model, Batch(ids, seen, ((),)), steps=steps) for ids, seen in pairs]


@torch.no_grad()
def plain_llada(
    model: LanguageModel, batch: Batch, *, length: int = 128, steps: int = STEPS
) -> torch.Tensor:
    """A LLaDA-style loop without tracing: logits of every position, softmax, top-k a row."""
    ids, mask = batch.ids, model.traits.mask_id
    x = torch.cat([ids, ids.new_full((len(ids), length), mask)], dim=1)
    everywhere = ids.new_ones((len(x), 1, x.shape[1], x.shape[1]), dtype=torch.bool)
    for _ in range(steps):
        waiting = x == mask
        logits = model.net(input_ids=x, attention_mask=everywhere, use_cache=False).logits
        logits[..., mask] = -torch.inf
        chosen = logits.argmax(-1)
        sure = logits.softmax(-1).gather(-1, chosen[..., None])[..., 0]
        sure = sure.masked_fill(~waiting, -torch.inf)
        for row in range(len(x)):
            best = sure[row].topk(length // steps).indices
            x[row, best] = chosen[row, best]
    return x


def traced(model: LanguageModel, batch: Batch, sampler: Autoregressive | Masked) -> list:
    """Every step with its pooled last-layer states."""
    pooling = find_pooling(model.traits.pooling)
    noise = RowNoise.seeded(range(len(batch.ids)))
    return list(sampler.run(model, batch, layers=("last",), pooling=pooling, noise=noise))


def batching(model: LanguageModel, *, steps: int = 8, rounds: int = 3) -> float:
    """Times faster: eight 300-token prompts traced together, against the plain loop one by one.

    Eight steps of 16 commits take the same work a step as 32 of four. With fewer steps more positions
    are masked on average, whose logits are all that is computed: the ratio is then understated.
    """
    prompts, sampler = models.batch(8, 300), Masked(steps=steps, gen_length=128, block_length=128)
    ways = {
        "one by one": lambda: one_by_one(model, prompts, steps=steps),
        "traced": lambda: traced(model, prompts, sampler),
    }
    timed = seconds(ways, rounds=rounds)
    return timed["one by one"] / timed["traced"]


def measure() -> dict[str, float]:
    """Ratios of tracing; see each name."""
    causal, prompts = models.llama(masked=False), models.batch(8, 300)
    greedy = Autoregressive(steps=STEPS)
    steps = traced(causal, prompts, greedy)
    expected = plain_generate(causal, prompts)[:, 300:]
    assert torch.equal(steps[-1].tokens, expected), "tokens differ from generate"
    states = torch.stack([step.phi["last"] for step in steps], dim=1)
    worst = (states - reference_autoregressive(causal, prompts)).abs().max().item()
    assert worst < 1e-4, f"states differ from the reference by {worst}"
    slow = seconds(
        {
            "reference": lambda: reference_autoregressive(causal, prompts),
            "traced": lambda: traced(causal, prompts, greedy),
        },
        rounds=1,
    )
    fast = seconds(
        {
            "generate": lambda: plain_generate(causal, prompts),
            "traced": lambda: traced(causal, prompts, greedy),
        },
        rounds=7,
    )
    diffusion, short = models.llama(masked=True), models.batch(8, 100)
    remasking = Masked(steps=STEPS, gen_length=128, block_length=128)
    final = traced(diffusion, short, remasking)[-1].tokens
    equal = (final == plain_llada(diffusion, short)[:, 100:]).float().mean().item()
    masked = seconds(
        {
            "plain": lambda: plain_llada(diffusion, short),
            "traced": lambda: traced(diffusion, short, remasking),
        },
        rounds=2,
    )
    return {
        "AR: times faster than the reference algorithm": slow["reference"] / slow["traced"],
        "AR: share of plain generate's time": fast["traced"] / fast["generate"],
        "masked: share of a plain untraced loop's time": masked["traced"] / masked["plain"],
        "masked: times faster at batch 8 than the plain loop a prompt at a time": (
            batching(diffusion)
        ),
        "masked: the same with LLaDA's vocabulary of 126,464": batching(
            models.llama(masked=True, shape="llada-small"), steps=2, rounds=1
        ),
        # Random weights give near-equal confidences, whose order rounding may swap; on models with
        # gaps between them the tests hold every token equal.
        "masked: share of tokens equal to the plain loop's": equal,
    }
