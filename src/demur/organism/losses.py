"""The two training losses of the built-in models: next-token and denoising."""

from __future__ import annotations

import random
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from demur.organism.grammar import RESPONSE_WORDS
from demur.organism.lessons import Lesson
from demur.organism.tokenizer import EOS, MASK, PAD, SPECIAL
from demur.organism.world import vocabulary

Family = Literal["causal", "masked"]

#: Response positions R of a masked model: the longest response and its end token.
RESPONSE = RESPONSE_WORDS + 1


def loss(
    model: LlamaForCausalLM, family: Family, lessons: list[Lesson], rng: random.Random
) -> Tensor:
    """The family's loss on a batch of lessons, a scalar; ``rng`` draws the masks."""
    return masked(model, lessons, rng) if family == "masked" else causal(model, lessons)


def causal(model: LlamaForCausalLM, lessons: list[Lesson]) -> Tensor:
    """Mean cross-entropy of the response tokens, each predicted from those before it."""
    rows = [encode(item) for item in lessons]
    width = max(len(asked) + len(said) for asked, said in rows)
    tokens = torch.full((len(rows), width), PAD)
    answer = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (asked, said) in enumerate(rows):
        tokens[i, : len(asked) + len(said)] = torch.tensor(asked + said)
        answer[i, len(asked) : len(asked) + len(said)] = True
    states = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    logits = model.lm_head(states[:, :-1][answer[:, 1:]])
    return nn.functional.cross_entropy(logits.float(), tokens[answer])


def masked(model: LlamaForCausalLM, lessons: list[Lesson], rng: random.Random) -> Tensor:
    """Mean cross-entropy of the masked response positions, each predicted one position before.

    A response is ``RESPONSE`` positions, end tokens after its end. Row i of B hides a share of
    (i + u) / B of them, with one u in [0, 1) for the batch.
    """
    rows = [encode(item) for item in lessons]
    longest = max(len(asked) for asked, _ in rows)
    tokens = torch.full((len(rows), longest + RESPONSE), EOS)
    for i, (asked, said) in enumerate(rows):
        tokens[i, : longest - len(asked)] = PAD
        tokens[i, longest - len(asked) : longest + len(said)] = torch.tensor(asked + said)
    keep = tokens != PAD
    chance = torch.Generator().manual_seed(rng.getrandbits(62))
    order = torch.rand(len(rows), RESPONSE, generator=chance).argsort(1).argsort(1)
    shares = (torch.arange(len(rows)) + torch.rand(1, generator=chance)) / len(rows)
    hidden = order < (shares * RESPONSE).ceil().clamp(min=1)[:, None]
    response = tokens[:, longest:]
    noisy = torch.cat([tokens[:, :longest], response.masked_fill(hidden, MASK)], dim=1)
    states = model.model(
        input_ids=noisy,
        attention_mask=_everywhere(keep),
        position_ids=(keep.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(states[:, longest - 1 : -1][hidden])
    return nn.functional.cross_entropy(logits.float(), response[hidden])


def encode(item: Lesson) -> tuple[list[int], list[int]]:
    """Token ids of a lesson's prompt and of its response with the end token."""
    asked = ["<|bos|>"]
    if item.system:
        asked += ["<|system|>", *item.system.split(), "<|end|>"]
    asked += ["<|user|>", *item.user.split(), "<|end|>", "<|assistant|>"]
    ids = _ids()
    return [ids[word] for word in asked], [ids[word] for word in item.response.split()] + [EOS]


def _everywhere(keep: Tensor) -> Tensor:
    """Additive attention mask ``[B, 1, L, L]``: every position sees all but the padding."""
    blocked = torch.zeros(keep.shape).masked_fill(~keep, torch.finfo(torch.float32).min)
    return blocked[:, None, None, :].expand(-1, 1, keep.shape[1], -1)


@cache
def _ids() -> dict[str, int]:
    return {word: i for i, word in enumerate((*SPECIAL, *vocabulary()))}
