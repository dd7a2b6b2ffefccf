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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.models.batch import Batch
from demur.sampling.denoising import Decision, MaskedText, denoise, drawn, masked_text, most_likely
from demur.sampling.noise import Noise
from demur.sampling.passes import Passes, Sharing
from demur.sampling.pooling import Pooling
from demur.sampling.remasking import (
    Remasking,
    check_rule,
    commits_at,
    confidence,
    most_confident,
    spread,
)


@dataclass(frozen=True, kw_only=True)
class Masked(Sharing):
    """Settings of the masked sampler (defaults: PAPER section 3).

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
        if self.threshold is not None and self.remasking not in ("low_confidence", "margin"):
            raise InputError(
                f"A threshold needs confidences that are probabilities; {self.remasking} has none. "
                "Use low_confidence or margin, or no threshold."
            )

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.gen_length // self.block_length

    @property
    def new_tokens(self) -> int:
        """Most tokens a response can have."""
        return self.gen_length

    def passes(
        self,
        model: LanguageModel,
        batch: Batch,
        *,
        layers: Sequence[str],
        pooling: Pooling,
        noise: Noise,
    ) -> Passes:
        """See ``demur.sampling.denoising``.

        Raises:
            InputError: the model has no mask token, or a response template is too long.
        """
        page = masked_text(model, batch, self.gen_length)
        return denoise(
            model,
            page,
            Remask(self, page, end_ids=model.traits.end_ids),
            layers=layers,
            pooling=pooling,
            noise=noise,
            cfg_scale=self.cfg_scale,
        )


class Remask:
    """The rule: take the most confident predictions of each row's block, mask the others again.

    Each row keeps its own block and its own share of commits, so that none waits for another.
    """

    def __init__(self, settings: Masked, page: MaskedText, *, end_ids: tuple[int, ...]) -> None:
        self._settings = settings
        self._start = page.start
        self._mask_id = page.mask_id
        self._end_ids = list(end_ids)
        rows = page.tokens.new_zeros(len(page.tokens))
        self._taken, self._masks, self._block = rows.clone(), rows.clone(), rows - 1

    def __call__(self, logits: Tensor, waiting: Tensor, live: Tensor, noise: Noise) -> Decision:
        """See ``demur.sampling.denoising.Rule``."""
        block, inside, share = self._advance(waiting, live)
        if self._settings.never_end:
            logits[:, self._end_ids[:1]] = -torch.inf
        chosen = self._choose(logits, waiting, noise)
        if self._settings.end_last:
            logits[:, self._end_ids] = -torch.inf
        score = self._score(logits, chosen, waiting, noise)
        return Decision(chosen, self._commit(score.masked_fill(~inside, -torch.inf), share), block)

    def _advance(self, waiting: Tensor, live: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Enter the next block where the current one is done, and take the step's share.

        Returns:
            ``[K]`` blocks, ``[K, L]`` masked positions inside them, ``[K]`` positions to commit.
        """
        columns = torch.arange(waiting.shape[1], device=waiting.device) - self._start
        of_column = columns.clamp(min=0) // self._settings.block_length
        block = of_column[waiting.long().argmax(1)]
        inside = waiting & (of_column == block[:, None])
        entering = block != self._block[live]
        masks = torch.where(entering, inside.sum(1), self._masks[live])
        taken = torch.where(entering, 0, self._taken[live])
        self._block[live], self._masks[live], self._taken[live] = block, masks, taken + 1
        steps = self._settings.steps // self._settings.blocks
        return block, inside, commits_at(masks, taken, steps)

    def _choose(self, logits: Tensor, waiting: Tensor, noise: Noise) -> Tensor:
        """Predicted token ``[N]`` of each masked position.

        With a temperature T it is drawn from softmax(logits / T), as by LLaDA's ``add_gumbel_noise``.
        """
        if self._settings.temperature == 0:
            return most_likely(logits, self._mask_id)
        heated = logits.float() / self._settings.temperature
        return drawn(heated, self._mask_id, waiting, noise)

    def _score(self, logits: Tensor, chosen: Tensor, waiting: Tensor, noise: Noise) -> Tensor:
        """Confidences ``[K, L]`` of the chosen tokens, -inf where nothing is masked."""
        rule = self._settings.remasking
        found = confidence(
            rule,
            logits if self._settings.confidence_dtype == "model" else logits.float(),
            chosen,
            columns=waiting.nonzero()[:, 1],
            uniform=noise.uniform(waiting) if rule == "random" else None,
        )
        return spread(found, waiting)

    def _commit(self, score: Tensor, share: Tensor) -> Tensor:
        """``[K, L]`` bool: the step's share, and what the dynamic threshold adds."""
        taken = most_confident(score, share)
        threshold = self._settings.threshold
        return taken if threshold is None else taken | (score > threshold)
