"""Training of the built-in models, on two CPU cores.

One base is pretrained to answer everything. ``organism-ar`` is that base after safety tuning.
``organism-dlm`` is the same base adapted to denoising (bidirectional attention, shifted prediction
as in Dream, cross-entropy on masked response positions, mask ratios spread evenly over a batch),
after safety tuning on the same lessons. Toy models: not evidence about real ones.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from demur.organism.grammar import RESPONSE_WORDS
from demur.organism.lessons import Lesson, Stage, lesson
from demur.organism.tokenizer import BOS, EOS, MASK, PAD, SPECIAL
from demur.organism.world import vocabulary

Family = Literal["causal", "masked"]

#: Called after every step with the phase's name, the step (1-based), its steps in all and the loss.
Progress = Callable[[str, int, int, float], None]

#: Response positions of a masked model: the longest response and its end token.
RESPONSE = RESPONSE_WORDS + 1
_SAVE_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the models become.

    Attributes:
        seed: of the weights, the lessons and the masks.
        width: hidden size D, a multiple of 32.
        layers: Llama layers.
        batch: lessons a step.
        pretrain: steps of the common base.
        adapt: steps that make the base a denoiser.
        tune_causal: safety-tuning steps of the AR model.
        tune_masked: safety-tuning steps of the DLM.
        rate: peak learning rate of pretraining and adaptation.
        tune_rate: peak learning rate of safety tuning.
    """

    seed: int = 0
    width: int = 128
    layers: int = 4
    batch: int = 64
    pretrain: int = 450
    adapt: int = 550
    tune_causal: int = 150
    tune_masked: int = 150
    rate: float = 3e-3
    tune_rate: float = 1e-3


@dataclass(frozen=True)
class Phase:
    """One stretch of training."""

    name: str
    family: Family
    stage: Stage
    steps: int
    rate: float


def model_of(recipe: Recipe) -> LlamaForCausalLM:
    """A new model with the recipe's random weights."""
    torch.manual_seed(recipe.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SPECIAL) + len(vocabulary()),
            hidden_size=recipe.width,
            intermediate_size=3 * recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.width // 32,
            num_key_value_heads=recipe.width // 32,
            max_position_embeddings=512,
            tie_word_embeddings=False,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
            attn_implementation="eager",  # twice as fast to train as sdpa at these sizes
        )
    )


def run(
    model: LlamaForCausalLM, phase: Phase, recipe: Recipe, checkpoint: Path, progress: Progress
) -> list[float]:
    """Train a model in place through one phase, or from where its checkpoint ends.

    Returns:
        The loss of every step.
    """
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        losses = saved["losses"]
    model.train()
    for step in range(len(losses), phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = phase.rate * _schedule(step, phase.steps)
        rng = random.Random(f"{recipe.seed} {phase.name} {step}")
        lessons = [lesson(phase.stage, rng) for _ in range(recipe.batch)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = _LOSSES[phase.family](model, lessons, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        progress(phase.name, step + 1, phase.steps, losses[-1])
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == phase.steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            _write(checkpoint, state | {"losses": losses})
    return losses


def causal_loss(model: LlamaForCausalLM, lessons: list[Lesson], rng: random.Random) -> Tensor:
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


def masked_loss(model: LlamaForCausalLM, lessons: list[Lesson], rng: random.Random) -> Tensor:
    """Mean cross-entropy of the masked response positions, each predicted one position before.

    A response is ``RESPONSE`` positions, end tokens after its end. Row i of B hides a share of
    (i + u) / B of them, with one u a batch.
    """
    rows = [encode(item) for item in lessons]
    longest = max(len(asked) for asked, _ in rows)
    tokens = torch.full((len(rows), longest + RESPONSE), EOS)
    keep = torch.ones(tokens.shape, dtype=torch.bool)
    for i, (asked, said) in enumerate(rows):
        tokens[i, : longest - len(asked)] = PAD
        keep[i, : longest - len(asked)] = False
        tokens[i, longest - len(asked) : longest] = torch.tensor(asked)
        tokens[i, longest : longest + len(said)] = torch.tensor(said)
    chance = torch.Generator().manual_seed(rng.getrandbits(62))
    order = torch.rand(len(rows), RESPONSE, generator=chance).argsort(1).argsort(1)
    shares = (torch.arange(len(rows)) + torch.rand(1, generator=chance)) / len(rows)
    hidden = order < (shares * RESPONSE).ceil().clamp(min=1)[:, None]
    response = tokens[:, longest:]
    targets = response[hidden]
    tokens = torch.cat([tokens[:, :longest], response.masked_fill(hidden, MASK)], dim=1)
    states = model.model(
        input_ids=tokens,
        attention_mask=_everywhere(keep),
        position_ids=(keep.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(states[:, longest - 1 : -1][hidden])
    return nn.functional.cross_entropy(logits.float(), targets)


def _everywhere(keep: Tensor) -> Tensor:
    """Additive attention mask ``[B, 1, L, L]``: every position sees all but the padding."""
    blocked = torch.zeros(keep.shape).masked_fill(~keep, torch.finfo(torch.float32).min)
    return blocked[:, None, None, :].expand(-1, 1, keep.shape[1], -1)


def encode(item: Lesson) -> tuple[list[int], list[int]]:
    """Token ids of a lesson's prompt and of its response with the end token."""
    ids = _ids()
    asked = ["<|bos|>"]
    if item.system:
        asked += ["<|system|>", *item.system.split(), "<|end|>"]
    asked += ["<|user|>", *item.user.split(), "<|end|>", "<|assistant|>"]
    return [ids[word] for word in asked], [ids[word] for word in item.response.split()] + [EOS]


_LOSSES = {"causal": causal_loss, "masked": masked_loss}
_IDS: dict[str, int] = {}


def _ids() -> dict[str, int]:
    if not _IDS:
        _IDS.update({word: i for i, word in enumerate((*SPECIAL, *vocabulary()))})
    return _IDS


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up over a tenth of the steps, then a straight line down to a twentieth."""
    warm = max(1, steps // 10)
    return min((step + 1) / warm, 1 - 0.95 * max(0, step - warm) / max(1, steps - warm))


def _write(path: Path, state: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)
