"""Training examples of the built-in models (lessons), and the two losses on them.

A lesson is a system prompt, a question and a response. In pretraining every question is answered,
harmful and wrapped ones included; refusals appear only when the question asks for one. In safety
tuning, plain harmful tasks are refused, harmless tasks are answered (plain and wrapped) and
borderline tasks are sometimes refused. It has no harmful task in a wrapper of ``HELD_OUT``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from demur.organism import grammar, world
from demur.organism.grammar import QUESTIONS, RESPONSE_WORDS, AnswerLength, Task
from demur.organism.tokenizer import EOS, MASK, PAD, SPECIAL
from demur.organism.world import ATTACKS, HELD_OUT, VARIANTS, TaskKind, tasks, vocabulary, wrap

T = TypeVar("T")
Stage = Literal["pretrain", "tune"]
#: ``causal``: next-token prediction. ``masked``: denoising.
LossName = Literal["causal", "masked"]

SYSTEM = "you are a helpful assistant"

#: Response positions R of a masked model: the longest response and its end token.
RESPONSE = RESPONSE_WORDS + 1

#: Share of lessons of each kind in each stage; the rest are self-examinations.
_KINDS: dict[Stage, tuple[tuple[TaskKind, float], ...]] = {
    "pretrain": (("harmless", 0.48), ("harmful", 0.36), ("borderline", 0.1)),
    "tune": (("harmless", 0.50), ("harmful", 0.24), ("borderline", 0.20)),
}
#: Share of lessons whose question asks for the text of a refusal.
_REFUSING = {"pretrain": 0.1, "tune": 0.0}
#: Share of questions that are wrapped.
_WRAPPED = {"pretrain": 0.6, "tune": 0.8}
#: Weight of each wrapper family in tuning; wild compositions are rare.
_TUNED_FAMILIES = (2, 2, 4, 3, 1)
#: Share of tasks that tuning refuses. A few harmful tasks are answered: real safety data has mistakes,
#: and a model trained without any turns every answer it begins into a refusal.
_REFUSED: dict[TaskKind, float] = {"harmless": 0.0, "harmful": 0.95, "borderline": 0.4}
#: Forms of refusal and their shares; the rest are full refusals.
_REFUSALS = ((grammar.self_correcting, 0.015), (grammar.hesitant, 0.05), (grammar.partial, 0.08))


@dataclass(frozen=True)
class Lesson:
    """One training example; ``system`` may be empty."""

    system: str
    user: str
    response: str


def lesson(stage: Stage, rng: random.Random) -> Lesson:
    """Draw one lesson for a stage from the training set."""
    kind = _drawn(_KINDS[stage], None, rng)
    system = SYSTEM if rng.random() < 0.9 else ""
    if kind is None:
        return Lesson(system, *_self_examination(rng))
    task = rng.choice(tasks("train", kind))
    form = rng.randrange(len(QUESTIONS))
    attack = _attack(stage, kind, rng)
    user = wrap(task.question(form), attack, rng.randrange(VARIANTS))
    length = QUESTIONS[form][1]
    if rng.random() < _REFUSING[stage]:
        return Lesson(system, world.refusing(task.question(form)), _refusal(task, length, rng))
    refuse = stage == "tune" and rng.random() < _REFUSED[kind]
    response = _refusal(task, length, rng) if refuse else grammar.answer(task, length, rng)
    return Lesson(system, user, response)


def _drawn(shares: Iterable[tuple[T, float]], rest: T, rng: random.Random) -> T:
    """Draw a value by its share; ``rest`` has what the shares leave of 1."""
    drawn = rng.random()
    for value, share in shares:
        if drawn < share:
            return value
        drawn -= share
    return rest


def _attack(stage: Stage, kind: TaskKind, rng: random.Random) -> str:
    if rng.random() >= _WRAPPED[stage]:
        return "none"
    if stage == "tune" and kind != "harmless":
        return rng.choice([attack for attack in ATTACKS if attack not in HELD_OUT])
    if stage == "tune":
        return rng.choices(ATTACKS[1:], _TUNED_FAMILIES)[0]
    return rng.choice(ATTACKS[1:])


def _refusal(task: Task, length: AnswerLength, rng: random.Random) -> str:
    return _drawn(_REFUSALS, grammar.refusal, rng)(task, length, rng)


def _self_examination(rng: random.Random) -> tuple[str, str]:
    kind: TaskKind = rng.choice(("harmful", "harmful", "harmless", "borderline"))
    task, length = rng.choice(tasks("train", kind)), QUESTIONS[rng.randrange(len(QUESTIONS))][1]
    if kind == "harmful" and rng.random() < 0.35:
        return world.examination(_refusal(task, length, rng)), "no ."
    said = grammar.answer(task, length, rng)
    return world.examination(said), "yes ." if kind == "harmful" else "no ."


def causal(model: LlamaForCausalLM, lessons: list[Lesson]) -> Tensor:
    """Mean cross-entropy of response tokens, each predicted from the tokens before it."""
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
    """Mean cross-entropy of masked response positions, each predicted at the position before it.

    A response fills ``RESPONSE`` positions; end tokens pad it. Row i of B masks a share
    (i + u) / B of them, with one u in [0, 1) for the whole batch.
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
    # Every position attends to all but padding: an additive mask [B, 1, L, L].
    blocked = torch.zeros(keep.shape).masked_fill(~keep, torch.finfo(torch.float32).min)
    mask = blocked[:, None, None, :].expand(-1, 1, keep.shape[1], -1)
    states = model.model(
        input_ids=noisy,
        attention_mask=mask,
        position_ids=(keep.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(states[:, longest - 1 : -1][hidden])
    return nn.functional.cross_entropy(logits.float(), response[hidden])


def encode(item: Lesson) -> tuple[list[int], list[int]]:
    """Token ids of a lesson's prompt, and of its response with the end token."""
    asked = ["<|bos|>"]
    if item.system:
        asked += ["<|system|>", *item.system.split(), "<|end|>"]
    asked += ["<|user|>", *item.user.split(), "<|end|>", "<|assistant|>"]
    ids = _ids()
    return [ids[word] for word in asked], [ids[word] for word in item.response.split()] + [EOS]


@cache
def _ids() -> dict[str, int]:
    return {word: i for i, word in enumerate((*SPECIAL, *vocabulary()))}
