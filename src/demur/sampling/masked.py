"""Masked diffusion sampling with remasking.

Nie et al., Large Language Diffusion Models, arXiv:2502.09992; loop of LLaDA ``generate.py``:

    1. the response is all mask tokens, split into blocks;
    2. each step predicts every masked position;
    3. the most confident predictions inside the current block are committed, the others are masked
       again;
    4. after the block's share of the steps the next block begins.

Differs from the paper's loop: batched over prompts of any length, logits of masked positions only,
each row's schedule counts its own masks, and mask tokens inside the prompt are filled with the first
block. ``threshold`` adds a dynamic schedule: positions above it are committed too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling.choice import (
    Noise,
    Remasking,
    commits_at,
    confidence,
    drawn,
    heated,
    most_confident,
    most_likely,
    spread,
)
from demur.sampling.denoising import Denoising, MaskedText, Update, masked_text
from demur.sampling.sampler import Sampler, require, require_known
from demur.types import Record


@dataclass(frozen=True, kw_only=True)
class Masked(Sampler):
    """Settings of the masked sampler (defaults: as in docs/paper.md).

    Attributes:
        steps: denoising steps over the whole response, T; divided evenly over the blocks.
        gen_length: response positions R.
        block_length: positions of a block; equal to ``gen_length`` for one block.
        remasking: rule that decides what is committed.
        temperature: of the distribution that tokens are drawn from; 0 takes the most likely token.
        threshold: commit also every position with a confidence above it, in (0, 1); None keeps the
            static schedule.
        cfg_scale: classifier-free guidance; 0 is off. States are the conditional pass's.
        confidence_dtype: compute confidences in float32, or in the model's own dtype as LLaDA does
            since June 2025 (in bfloat16 many tie, which changes the order of commits).
        never_end: the first end token is never predicted (LLaDA's ``logits_eos_inf``).
        end_last: positions predicted to end the response are committed last (LLaDA's
            ``confidence_eos_eot_inf``, which upstream does by half when the temperature is above 0).
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
    never_end: bool = False
    end_last: bool = False

    def __post_init__(self) -> None:
        require_known(self, "remasking", get_args(Remasking))
        require(self, "at least 1", "steps", "gen_length", "block_length")
        require(self, "0 or more", "temperature", "cfg_scale")
        require(self, "between 0 and 1", "threshold")
        if self.gen_length % self.block_length:
            raise InputError(
                f"block_length {self.block_length} does not divide gen_length {self.gen_length}. "
                "Choose a block length that does."
            )
        if self.steps % self.blocks:
            raise InputError(
                f"steps {self.steps} cannot be divided over {self.blocks} blocks "
                f"({self.gen_length} / {self.block_length}). Choose a multiple of {self.blocks}."
            )
        if self.threshold is not None and self.remasking not in ("low_confidence", "margin"):
            raise InputError(
                f"A threshold needs confidences that are probabilities; {self.remasking} has none. "
                "Use low_confidence or margin, or no threshold."
            )

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.gen_length // self.block_length

    def run(self, model: LanguageModel, batch: Batch, record: Record, noise: Noise) -> Denoising:
        """Generate; see ``Remask`` for the step.

        Raises:
            InputError: the model has no mask token, or a response template is too long.
        """
        text = masked_text(model, batch, self.gen_length)
        rule = Remask(self, text, end_ids=model.traits.end_ids)
        return Denoising(model, text, rule, record, noise, cfg_scale=self.cfg_scale)


@final
class Remask:
    """LLaDA's step. Each row has its own block and schedule, so no row waits for another."""

    def __init__(self, settings: Masked, text: MaskedText, *, end_ids: tuple[int, ...]) -> None:
        self._settings, self._mask_id, self._end_ids = settings, text.mask_id, list(end_ids)
        columns = torch.arange(text.tokens.shape[1], device=text.tokens.device) - text.start
        self._block_of = columns.clamp(min=0) // settings.block_length
        # For each row: its block, the masks it had at the block's first step, the steps taken in it.
        rows = text.tokens.new_zeros(len(text.tokens))
        self._block, self._masks, self._taken = rows - 1, rows.clone(), rows.clone()

    def __call__(
        self, x: Tensor, masked: Tensor, logits: Tensor, live: Tensor, noise: Noise
    ) -> Update:
        """See ``demur.sampling.denoising.Rule``."""
        # Predict: ``Denoising`` reads x and gives the logits of every masked position.
        s = self._settings
        block = self._block_of[masked.long().argmax(1)]  # that of the first mask
        inside = masked & (self._block_of == block[:, None])

        # Choose a token for every masked position: the most likely, or one drawn from
        # softmax(logits / temperature), as by LLaDA's add_gumbel_noise.
        if s.never_end:
            logits[:, self._end_ids[:1]] = -torch.inf
        if s.temperature > 0:
            tokens = drawn(heated(logits.float(), s.temperature), self._mask_id, masked, noise)
        else:
            tokens = most_likely(logits, self._mask_id)
        draft = x.masked_scatter(masked, tokens)

        # Score each choice; only positions of the current block compete.
        if s.end_last:
            logits[:, self._end_ids] = -torch.inf
        if s.confidence_dtype == "float32":
            logits = logits.float()
        score = spread(confidence(s.remasking, logits, tokens, masked, noise), masked)
        score = score.masked_fill(~inside, -torch.inf)

        # Commit the most confident; all other positions stay masked.
        commit = most_confident(score, self._share(block, inside, live))
        if s.threshold is not None:
            commit |= score > s.threshold
        return Update(torch.where(commit, draft, x), draft, block)

    def _share(self, block: Tensor, inside: Tensor, live: Tensor) -> Tensor:
        """``[K]`` positions to commit: a block's masks spread evenly over its steps."""
        entering = block != self._block[live]
        masks = torch.where(entering, inside.sum(1), self._masks[live])
        taken = torch.where(entering, 0, self._taken[live])
        self._block[live], self._masks[live], self._taken[live] = block, masks, taken + 1
        return commits_at(masks, taken, self._settings.steps // self._settings.blocks)
