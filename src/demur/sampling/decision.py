"""What a step of the block sampler decides: predictions, commits and edits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from demur.sampling.denoising import drawn, most_likely
from demur.sampling.noise import Noise
from demur.sampling.page import Page
from demur.sampling.remasking import Remasking, commits_at, confidence, most_confident, spread

if TYPE_CHECKING:
    from demur.sampling.block import Block


@dataclass(frozen=True)
class BlockDecision:
    """What a step decides about each row's block.

    Attributes:
        tokens: ``[K, L]`` the block after the step, masks included.
        draft: ``[K, L]`` the same with a prediction for every mask.
        busy: ``[K]`` bool, the block goes on even if no mask is left.
    """

    tokens: Tensor
    draft: Tensor
    busy: Tensor


class BlockRule:
    """Predict every masked position of a block, commit the most confident, edit what is committed.

    Each row counts the steps of its own block.
    """

    def __init__(self, settings: Block, page: Page) -> None:
        self._settings, self._mask_id = settings, page.mask_id
        self._block = torch.full_like(page.first, -1)
        self._taken, self._edited = torch.zeros_like(page.first), torch.zeros_like(page.first)

    def asks(self, now: Tensor, given: Tensor) -> Tensor:
        """``[K, L]`` bool: positions of the block whose logits the rule needs."""
        return now == self._mask_id if self._settings.edit_threshold is None else ~given

    def __call__(
        self,
        logits: Tensor,
        asked: Tensor,
        now: Tensor,
        block: Tensor,
        live: Tensor,
        noise: Noise,
    ) -> BlockDecision:
        """Decide a step of the rows ``live``.

        Args:
            logits: ``[N, V]`` of the positions asked for.
            asked: ``[K, L]`` bool, where they are.
            now: ``[K, L]`` tokens of each row's block.
            block: ``[K]`` which block that is.
            noise: of those rows.
        """
        settings, waiting = self._settings, now == self._mask_id
        entered = block != self._block[live]
        taken = self._taken[live].masked_fill(entered, 0)
        self._block[live], self._taken[live] = block, taken + 1
        length = torch.full_like(taken, settings.block_length)
        logits, chosen = self._choose(logits, asked, noise)
        predicted = now.masked_scatter(asked, chosen)
        score = self._scores(settings.remasking, logits, chosen, asked, noise)
        score = score.masked_fill(~waiting, -torch.inf)
        commit = most_confident(score, commits_at(length, taken, settings.block_steps))
        if settings.threshold is not None:
            commit |= score > settings.threshold
        edit = torch.zeros_like(commit)
        if settings.edit_threshold is not None:
            sure = self._scores("low_confidence", logits, chosen, asked, noise)
            edit = (sure > settings.edit_threshold) & ~waiting & (predicted != now)
        edited = self._edited[live].masked_fill(entered, 0) + (~waiting.any(1)).long()
        self._edited[live] = edited
        tokens = torch.where(commit | edit, predicted, now)
        draft = torch.where(waiting, predicted, tokens)
        idle = ~waiting.any(1) & (~edit.any(1) | (edited >= settings.edit_steps))
        return BlockDecision(tokens, draft, ~idle & (settings.edit_threshold is not None))

    def _scores(
        self, rule: Remasking, logits: Tensor, chosen: Tensor, asked: Tensor, noise: Noise
    ) -> Tensor:
        """``[K, L]`` confidences, -inf where nothing was asked."""
        uniform = noise.uniform(asked) if rule == "random" else None
        columns = asked.nonzero()[:, 1]
        found = confidence(rule, logits, chosen, columns=columns, uniform=uniform)
        return spread(found, asked)

    def _choose(self, logits: Tensor, asked: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Logits that were drawn from, and the ``[N]`` tokens."""
        if self._settings.temperature == 0:
            return logits, most_likely(logits, self._mask_id)
        logits = narrowed(logits, self._settings)
        return logits, drawn(logits, self._mask_id, asked, noise)


def narrowed(logits: Tensor, settings: Block) -> Tensor:
    """``[N, V]`` logits over the temperature, -inf outside the top k and then the nucleus."""
    logits = logits / settings.temperature
    if settings.top_k:
        least = logits.topk(min(settings.top_k, logits.shape[1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p < 1:
        ordered, order = logits.sort(descending=True)
        mass = ordered.softmax(-1).cumsum(-1)
        outside = torch.cat([torch.zeros_like(mass[:, :1]), mass[:, :-1]], 1) > settings.top_p
        logits = logits.masked_fill(outside.scatter(1, order, outside), -torch.inf)
    return logits
