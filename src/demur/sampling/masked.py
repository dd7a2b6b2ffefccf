"""Masked diffusion sampling with remasking.

Nie et al., Large Language Diffusion Models, arXiv:2502.09992; loop of LLaDA ``generate.py``:

    1. the response is all mask tokens, split into blocks;
    2. each step predicts every masked position;
    3. the most confident predictions inside the current block are committed, the others are masked
       again;
    4. after the block's share of the steps the next block begins.

Differs from the paper's loop: batched over prompts of any length, logits of masked positions only,
each row's schedule counts its own masks, and mask tokens inside the prompt are filled with the first
block. ``threshold`` adds the dynamic schedule: commit also what is above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling.noise import Noise
from demur.sampling.pooling import Pooling, mean_states, positions_mask
from demur.sampling.remasking import (
    Remasking,
    check_rule,
    commits_at,
    confidence,
    most_confident,
)
from demur.types import Step


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Settings of the masked sampler (defaults: PAPER section 3).

    Attributes:
        steps: denoising steps over the whole response, T; divided evenly over the blocks.
        gen_length: response positions R.
        block_length: positions of a block; equal to ``gen_length`` for one block.
        remasking: rule that decides what is committed.
        temperature: of the Gumbel noise; 0 takes the most likely token.
        threshold: commit also every position with a confidence above it, in (0, 1); None keeps the
            static schedule.
        cfg_scale: classifier-free guidance; 0 is off. States are the conditional pass's.
        confidence_dtype: compute confidences in float32, or in the model's own dtype as LLaDA does
            since June 2025 (in bfloat16 many tie, which changes the order of commits).
    """

    name: ClassVar[str] = "masked"
    steps: int = 32
    gen_length: int = 128
    block_length: int = 128
    remasking: Remasking = "low_confidence"
    temperature: float = 0.0
    threshold: float | None = None
    cfg_scale: float = 0.0
    confidence_dtype: Literal["float32", "model"] = "float32"

    def __post_init__(self) -> None:
        check_rule(self.remasking)
        if self.gen_length < 1 or self.block_length < 1 or self.gen_length % self.block_length:
            raise InputError(
                f"block_length {self.block_length} does not divide gen_length {self.gen_length}. "
                "Choose a block length that does."
            )
        if self.steps < 1 or self.steps % self.blocks:
            raise InputError(
                f"steps {self.steps} cannot be divided over {self.blocks} blocks "
                f"({self.gen_length} / {self.block_length}). Choose a multiple of {self.blocks}."
            )
        if self.temperature < 0 or self.cfg_scale < 0:
            raise InputError(
                f"temperature is {self.temperature} and cfg_scale {self.cfg_scale}; "
                "both must be 0 or more."
            )
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}; it must lie between 0 and 1.")

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.gen_length // self.block_length

    @property
    def new_tokens(self) -> int:
        """Most tokens a response can have."""
        return self.gen_length

    def run(
        self,
        model: LanguageModel,
        batch: Batch,
        *,
        layers: Sequence[str],
        pooling: Pooling,
        noise: Noise,
    ) -> Iterator[Step]:
        """Generate; see ``masked``."""
        return masked(model, batch, self, layers=layers, pooling=pooling, noise=noise)


@torch.inference_mode()
def masked(
    model: LanguageModel,
    batch: Batch,
    settings: Masked,
    *,
    layers: Sequence[str],
    pooling: Pooling,
    noise: Noise,
) -> Iterator[Step]:
    """Yield a ``Step`` for each denoising iteration; stop iterating to stop generating.

    Raises:
        InputError: the model has no mask token, or a response template is too long.
    """
    mask_id = require_mask(model)
    x, attention, start = canvas(model, batch, settings, mask_id)
    fixed = x != mask_id
    schedule = Schedule(settings, start, rows=len(x), device=x.device)
    phi: dict[str, Tensor] = {}
    for index in count(1):
        running = (x == mask_id).any(1)
        if not running.any():
            return
        live = running.nonzero()[:, 0]
        now, seen = x[live], None if attention is None else attention[live]
        waiting = now == mask_id
        edges, share = schedule.advance(waiting, live)
        states = model.states(now, seen, layers=("last", *layers))
        logits = masked_logits(model, states["last"], now, waiting, fixed[live], seen, settings)
        chosen = choose(logits, mask_id, waiting, settings, noise.keep(live))
        score = scored(logits, chosen, waiting, settings, noise.keep(live))
        draft = x.index_copy(0, live, now.masked_scatter(waiting, chosen))
        score = score.masked_fill(beyond(edges, now), -torch.inf)
        now = torch.where(commits(score, share, settings), draft[live], now)
        x = x.index_copy(0, live, now)
        pooled = pool(model, states, now, draft[live], start, layers, pooling)
        phi = {k: v.index_copy(0, live, pooled[k]) for k, v in (phi or pooled).items()}
        tokens = x[:, start:].masked_fill(x[:, start:] == mask_id, -1)
        blocks = schedule.block.clone()
        yield Step(index, tokens, draft[:, start:], phi, running, x[:, :start], blocks)


class Schedule:
    """Each row's current block and its share of commits; rows advance without waiting for others."""

    def __init__(self, settings: Masked, start: int, *, rows: int, device: torch.device) -> None:
        self._settings = settings
        self._start = start
        self._steps = settings.steps // settings.blocks
        self._entered = torch.zeros(rows, dtype=torch.bool, device=device)
        self._taken = torch.zeros(rows, dtype=torch.long, device=device)
        self._masks = torch.zeros(rows, dtype=torch.long, device=device)
        self.block = torch.zeros(rows, dtype=torch.long, device=device)

    def advance(self, waiting: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
        """Enter the next block where the current one is done, and take the step's share.

        Args:
            waiting: ``[K, L]`` bool, masked positions of the live rows, at least one a row.
            live: ``[K]`` places of those rows in the batch.

        Returns:
            ``[K]`` first column after each row's block, and ``[K]`` positions to commit.
        """
        first = waiting.long().argmax(1) - self._start
        block = first.clamp(min=0) // self._settings.block_length
        entering = (block != self.block[live]) | ~self._entered[live]
        edges = self._start + (block + 1) * self._settings.block_length
        inside = (waiting & ~beyond(edges, waiting)).sum(1)
        self._masks[live] = torch.where(entering, inside, self._masks[live])
        self._taken[live] = torch.where(entering, 0, self._taken[live])
        self._entered[live] = True
        self.block[live] = block
        share = commits_at(self._masks[live], self._taken[live], self._steps)
        self._taken[live] += 1
        return edges, share


def beyond(edges: Tensor, like: Tensor) -> Tensor:
    """``[K, L]`` bool: columns at or after each row's edge ``[K]``."""
    return torch.arange(like.shape[1], device=like.device) >= edges[:, None]


def require_mask(model: LanguageModel) -> int:
    """The model's mask token; raises InputError when it has none."""
    if model.traits.mask_id is None:
        raise InputError(
            f"{model.name} is autoregressive and has no mask token. Use --sampler autoregressive."
        )
    return model.traits.mask_id


def canvas(
    model: LanguageModel, batch: Batch, settings: Masked, mask_id: int
) -> tuple[Tensor, Tensor | None, int]:
    """Prompt and masked response: tokens ``[B, P + R]``, attention (None unpadded), P."""
    response = batch.ids.new_full((len(batch.ids), settings.gen_length), mask_id)
    for row, template in enumerate(batch.responses):
        if len(template) > settings.gen_length:
            raise InputError(
                f"A response template of {len(template)} tokens does not fit gen_length "
                f"{settings.gen_length}. Raise gen_length."
            )
        for column, token in enumerate(template):
            if token >= 0:
                response[row, column] = token
    x = torch.cat([batch.ids, response], dim=1)
    attention = None
    if batch.padded:
        attention = torch.cat([batch.attention, torch.ones_like(response, dtype=torch.bool)], 1)
    return x, attention, batch.ids.shape[1]


def masked_logits(
    model: LanguageModel,
    states: Tensor,
    x: Tensor,
    waiting: Tensor,
    fixed: Tensor,
    attention: Tensor | None,
    settings: Masked,
) -> Tensor:
    """Logits ``[N, V]`` of the N masked positions only, guided where asked for."""
    logits = model.logits(predictors(model, states, waiting))
    if settings.cfg_scale == 0:
        return logits
    blind = x.masked_fill(fixed, require_mask(model))
    without = model.states(blind, attention)["last"]
    unguided = model.logits(predictors(model, without, waiting))
    return unguided + (settings.cfg_scale + 1) * (logits - unguided)


def predictors(model: LanguageModel, states: Tensor, waiting: Tensor) -> Tensor:
    """``[N, D]`` states that predict the masked positions (at j - 1 in shifted models)."""
    if model.traits.shift:
        states = torch.cat([states[:, :1], states[:, :-1]], dim=1)
    return states[waiting]


def choose(
    logits: Tensor, mask_id: int, waiting: Tensor, settings: Masked, noise: Noise
) -> Tensor:
    """Predicted token ``[N]`` of each masked position, never the mask token itself.

    With a temperature T the token is argmax(logits - T log(-log u)), the Gumbel form of LLaDA's
    ``add_gumbel_noise``, in float64 as there.
    """
    held = logits[:, mask_id].clone()
    logits[:, mask_id] = -torch.inf
    if settings.temperature == 0:
        chosen = logits.argmax(-1)
    else:
        uniform = noise.uniform(waiting, logits.shape[1])
        gumbel = torch.log(-torch.log(uniform))
        chosen = (logits.double() - settings.temperature * gumbel).argmax(-1)
    logits[:, mask_id] = held
    return chosen


def scored(
    logits: Tensor, chosen: Tensor, waiting: Tensor, settings: Masked, noise: Noise
) -> Tensor:
    """Confidences ``[K, L]`` of the chosen tokens, -inf where nothing is masked."""
    rule = settings.remasking
    found = confidence(
        rule,
        logits if settings.confidence_dtype == "model" else logits.float(),
        chosen,
        columns=waiting.nonzero()[:, 1],
        uniform=noise.uniform(waiting, 1)[:, 0] if rule == "random" else None,
    )
    score = torch.full(waiting.shape, -torch.inf, dtype=found.dtype, device=found.device)
    return score.masked_scatter(waiting, found)


def commits(score: Tensor, share: Tensor, settings: Masked) -> Tensor:
    """``[B, L]`` bool: the step's share, and what the dynamic threshold adds."""
    taken = most_confident(score, share)
    return taken if settings.threshold is None else taken | (score > settings.threshold)


def pool(
    model: LanguageModel,
    states: dict[str, Tensor],
    x: Tensor,
    draft: Tensor,
    start: int,
    layers: Sequence[str],
    pooling: Pooling,
) -> dict[str, Tensor]:
    """Layer -> ``[B, D]`` mean over the positions that the pooling names."""
    chosen = positions_mask(
        pooling,
        committed=x[:, start:] != model.traits.mask_id,
        draft=draft[:, start:],
        end_ids=model.traits.end_ids,
    )
    first = start - pooling.predictor
    last = first + chosen.shape[1]
    return {layer: mean_states(states[layer][:, first:last], chosen) for layer in layers}
