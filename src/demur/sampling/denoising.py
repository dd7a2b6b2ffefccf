"""The loop that masked diffusion samplers share: predict every masked position, commit some.

What is predicted and committed is a rule's decision, made from the logits of the masked positions
alone. Rows whose masks are all filled leave the batch; no row waits for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.models.batch import Batch
from demur.sampling.noise import Noise
from demur.sampling.passes import Pass, Passes
from demur.sampling.pooling import Pooling, mean_states, positions_mask
from demur.types import Step


@dataclass(frozen=True)
class MaskedText:
    """Prompts and masked responses, as they stand before the first step.

    Attributes:
        tokens: ``[B, P + R]`` int64.
        attention: ``[B, P + R]`` bool, False on padding; None when nothing is padded.
        start: P, the first response column.
        mask_id: the mask token.
    """

    tokens: Tensor
    attention: Tensor | None
    start: int
    mask_id: int


@dataclass(frozen=True)
class Decision:
    """What a rule decides at one step for the K rows still running.

    Attributes:
        chosen: ``[N]`` predicted token of each masked position, row by row.
        commit: ``[K, L]`` bool, masked positions whose prediction is committed.
        block: ``[K]`` 0-based block each row works on.
    """

    chosen: Tensor
    commit: Tensor
    block: Tensor


class Rule(Protocol):
    """Decides a step. A rule is made for one canvas and may count its steps."""

    def __call__(self, logits: Tensor, waiting: Tensor, live: Tensor, noise: Noise) -> Decision:
        """Decide from the logits of the masked positions.

        Args:
            logits: ``[N, V]`` of the N masked positions, in the model's dtype.
            waiting: ``[K, L]`` bool, where they are; at least one a row.
            live: ``[K]`` places of the rows in the batch.
            noise: of those rows.
        """


@torch.inference_mode()
def denoise(
    model: LanguageModel,
    page: MaskedText,
    rule: Rule,
    *,
    layers: Sequence[str],
    pooling: Pooling,
    noise: Noise,
    cfg_scale: float = 0.0,
) -> Passes:
    """Ask for the pass of each denoising iteration, and one more with guidance, and yield its ``Step``.

    Rows that it is sent after a step are given up (see ``demur.sampling.passes``).
    """
    x, start, mask_id = page.tokens, page.start, page.mask_id
    given = x != mask_id
    block = torch.zeros(len(x), dtype=torch.long, device=x.device)
    phi: dict[str, Tensor] = {}
    followed = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for index in count(1):
        running = (x == mask_id).any(1) & followed
        if not running.any():
            return
        live = running.nonzero()[:, 0]
        now, seen = x[live], None if page.attention is None else page.attention[live]
        waiting = now == mask_id
        states = yield Pass(now, seen, ("last", *layers))
        logits = model.logits(predictors(model, states["last"], waiting, seen))
        if cfg_scale > 0:
            # Classifier-free guidance: away from what a masked prompt predicts (LLaDA generate.py).
            blind = yield Pass(now.masked_fill(given[live], mask_id), seen, ("last",))
            without = model.logits(predictors(model, blind["last"], waiting, seen))
            logits = without + (cfg_scale + 1) * (logits - without)
        decision = rule(logits, waiting, live, noise.keep(live))
        draft = x.index_copy(0, live, now.masked_scatter(waiting, decision.chosen))
        now = torch.where(decision.commit, draft[live], now)
        x = x.index_copy(0, live, now)
        block = block.index_copy(0, live, decision.block)
        pooled = pool(model, states, now, draft[live], page, layers, pooling)
        phi = phi or {k: v.new_zeros(len(x), v.shape[1]) for k, v in pooled.items()}
        phi = {k: v.index_copy(0, live, pooled[k]) for k, v in phi.items()}
        tokens = x[:, start:].masked_fill(x[:, start:] == mask_id, -1)
        left = yield Step(index, tokens, draft[:, start:], phi, running, x[:, :start], block)
        if left:
            followed[left] = False


def masked_text(model: LanguageModel, batch: Batch, gen_length: int) -> MaskedText:
    """Put a masked response behind each prompt, with what its template fixes.

    Raises:
        InputError: the model has no mask token, or a response template is too long.
    """
    mask_id = model.traits.mask_id
    if mask_id is None:
        raise InputError(
            f"{model.name} has no mask token (its attention is {model.traits.attention}). Use "
            f"--sampler {model.traits.sampler['name']}."
        )
    fixed = batch.fixed(gen_length)
    response = fixed.masked_fill(fixed < 0, mask_id)
    attention = None
    if batch.padded:
        attention = torch.cat([batch.attention, torch.ones_like(response, dtype=torch.bool)], 1)
    # Padding that is written with the mask token is no masked position.
    other = next(i for i in (*model.traits.end_ids, 0, 1) if i != mask_id)
    prompt = batch.ids.masked_fill(~batch.attention & (batch.ids == mask_id), other)
    tokens = torch.cat([prompt, response], dim=1)
    return MaskedText(tokens, attention, batch.ids.shape[1], mask_id)


def predictors(
    model: LanguageModel, states: Tensor, waiting: Tensor, attention: Tensor | None
) -> Tensor:
    """``[N, D]`` states that predict the masked positions ``waiting`` ``[K, L]``.

    Those at j - 1 in shifted models, where a row's first token predicts itself as in Dream's code.
    """
    rows, columns = waiting.nonzero(as_tuple=True)
    if model.traits.shift:
        before = (columns - 1).clamp(min=0)
        real = before >= 0 if attention is None else attention[rows, before]
        columns = torch.where(real, before, columns)
    return states[rows, columns]


def most_likely(logits: Tensor, mask_id: int) -> Tensor:
    """Highest token of each row ``[N]``, never the mask token itself; ties to the lowest id."""
    with without(logits, mask_id):
        return logits.argmax(-1)


def drawn(logits: Tensor, mask_id: int, where: Tensor, noise: Noise) -> Tensor:
    """A token of each row ``[N]`` by its probability, never the mask token itself.

    ``where`` ``[K, L]`` says whose logits ``[N, V]`` they are.
    """
    with without(logits, mask_id):
        return noise.choose(logits, where)


@contextmanager
def without(logits: Tensor, token: int) -> Iterator[None]:
    """A token cannot be chosen meanwhile; a copy of the logits would take longer than the choice."""
    held = logits[:, token].clone()
    logits[:, token] = -torch.inf
    yield
    logits[:, token] = held


def pool(
    model: LanguageModel,
    states: dict[str, Tensor],
    x: Tensor,
    draft: Tensor,
    page: MaskedText,
    layers: Sequence[str],
    pooling: Pooling,
) -> dict[str, Tensor]:
    """Layer -> ``[B, D]`` mean over the positions that the pooling names."""
    start = page.start
    chosen = positions_mask(
        pooling,
        committed=x[:, start:].ne(page.mask_id),
        draft=draft[:, start:],
        end_ids=model.traits.end_ids,
    )
    first = start - pooling.predictor
    last = first + chosen.shape[1]
    return {layer: mean_states(states[layer][:, first:last], chosen) for layer in layers}
