"""Block diffusion: blocks from left to right, masked diffusion inside each, exact keys and values
kept of those that are finished.

SDAR, arXiv:2510.06303, ``generate.py``; LLaDA 2.0, arXiv:2512.15745, ``generate``:

    1. prompt and response are cut into blocks, counted from the first prompt token, so that the
       prompt's tail shares a block with the beginning of the response;
    2. a position attends to its own block and to every block before it;
    3. each step predicts the masked positions of the first unfinished block and commits the most
       confident; with a threshold, also what is above it;
    4. a finished block never changes: its keys and values are kept;
    5. generation stops after a block with an end token.

Differs from upstream: batched, no row waiting for another; a finished block is stored by the next
block's first step, not by a pass of its own; no more positions are committed than are masked (SDAR's
rules overwrite the prompt's tail when a step's share is larger); the mask token is never predicted.
The last block reaches past ``gen_length`` where the prompt's length makes it; what lies there is
neither shown nor pooled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling.denoising import most_likely
from demur.sampling.noise import Noise
from demur.sampling.page import Page, Reader, Window, lay_out
from demur.sampling.pooling import FinishedMeans, Pooling, require_own_positions
from demur.sampling.remasking import (
    Remasking,
    check_rule,
    commits_at,
    confidence,
    most_confident,
)
from demur.types import Step


@dataclass(frozen=True, kw_only=True)
class Block:
    """Settings of the block sampler (defaults: SDAR ``generate.py``, but greedy).

    Attributes:
        gen_length: response positions R.
        block_length: positions of a block; the one the model was trained with.
        block_steps: denoising steps of a block without a threshold.
        remasking: rule that decides what is committed; ``left_to_right`` is SDAR's ``sequential``.
        threshold: commit also every position with a confidence above it, in (0, 1); None keeps the
            static schedule.
        temperature: of the multinomial draw; 0 takes the most likely token.
        top_k: draw from the most likely k tokens only; 0 is off.
        top_p: draw from the nucleus of this probability mass only, in (0, 1].
    """

    name: ClassVar[str] = "block"
    gen_length: int = 128
    block_length: int = 4
    block_steps: int = 4
    remasking: Remasking = "low_confidence"
    threshold: float | None = 0.85
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        check_rule(self.remasking)
        for name in ("gen_length", "block_length", "block_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}; it must lie between 0 and 1.")
        if self.temperature < 0 or self.top_k < 0:
            raise InputError(
                f"temperature is {self.temperature} and top_k {self.top_k}; both must be 0 or more."
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")

    @property
    def steps(self) -> int:
        """Most steps a generation takes; with a threshold it takes fewer."""
        blocks = -(-(self.gen_length + self.block_length - 1) // self.block_length)
        return blocks * min(self.block_steps, self.block_length)

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
        """Generate; see ``block``."""
        return block(model, batch, self, layers=layers, pooling=pooling, noise=noise)


@torch.inference_mode()
def block(
    model: LanguageModel,
    batch: Batch,
    settings: Block,
    *,
    layers: Sequence[str],
    pooling: Pooling,
    noise: Noise,
) -> Iterator[Step]:
    """Yield a ``Step`` for each denoising iteration; stop iterating to stop generating.

    Drafts are -1 in blocks that have not begun. Pooled are the positions of the blocks begun so far;
    while only slots inside the prompt are filled there is no response yet, and the block's own mean
    stands for it.

    Raises:
        InputError: not a block diffusion model, a response template is too long, or a pooling that
            takes the state before each position.
    """
    page, x = lay_out(
        model, batch, gen_length=settings.gen_length, block_length=settings.block_length
    )
    require_own_positions(pooling)
    read, rule = Reader(model, page, x, layers), Rule(settings, page)
    means = BlockMeans(page, pooling, layers, end_ids=model.traits.end_ids)
    blocks = torch.zeros_like(page.lengths)
    for index in count(1):
        running = page.unfinished(x, model.traits.end_ids)
        if not running.any():
            return
        live = running.nonzero()[:, 0]
        window, states = read(x, live)
        columns = window.columns[:, -settings.block_length :]
        now = x[live].gather(1, columns)
        waiting = now == page.mask_id
        logits = model.logits(states["last"][:, -settings.block_length :][waiting]).float()
        chosen, commit = rule(logits, waiting, window.block, live, noise.keep(live))
        predicted = now.masked_scatter(waiting, chosen)
        now = torch.where(commit, predicted, now)
        draft = page.response(page.write(x, live, columns, predicted))
        x = page.write(x, live, columns, now)
        phi = means(window, states, now, predicted, live)
        blocks = blocks.index_copy(0, live, page.response_block(window.block, live))
        tokens = page.response(x)
        yield Step(index, tokens, draft, phi, running, page.filled_prompt(x), blocks)


class Rule:
    """Predict every masked position of a block, commit the most confident.

    Each row counts the steps of its own block.
    """

    def __init__(self, settings: Block, page: Page) -> None:
        self._settings, self._mask_id = settings, page.mask_id
        self._taken, self._block = torch.zeros_like(page.lengths), torch.full_like(page.lengths, -1)

    def __call__(
        self, logits: Tensor, waiting: Tensor, block: Tensor, live: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Decide from the logits ``[N, V]`` of the masked positions of ``waiting`` ``[K, L]``.

        Returns:
            ``[N]`` predicted tokens and ``[K, L]`` bool, the positions to commit.
        """
        settings = self._settings
        taken = torch.where(block == self._block[live], self._taken[live], 0)
        self._block[live], self._taken[live] = block, taken + 1
        share = commits_at(
            torch.full_like(taken, settings.block_length), taken, settings.block_steps
        )
        logits, chosen = self._choose(logits, waiting, noise)
        found = confidence(
            settings.remasking,
            logits,
            chosen,
            columns=waiting.nonzero()[:, 1],
            uniform=noise.uniform(waiting, 1)[:, 0] if settings.remasking == "random" else None,
        )
        score = torch.full(waiting.shape, -torch.inf, dtype=found.dtype, device=found.device)
        score = score.masked_scatter(waiting, found)
        commit = most_confident(score, share)
        if settings.threshold is not None:
            commit |= score > settings.threshold
        return chosen, commit

    def _choose(self, logits: Tensor, waiting: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Logits that were drawn from, and the ``[N]`` tokens.

        The draw is argmax(p / -log u), which is how ``torch.multinomial`` draws one.
        """
        if self._settings.temperature == 0:
            return logits, most_likely(logits, self._mask_id)
        logits = narrowed(logits, self._settings)
        waits = -torch.log(noise.uniform(waiting, logits.shape[1]))
        return logits, most_likely(logits.softmax(-1) / waits, self._mask_id)


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


class BlockMeans:
    """Means over the positions of the blocks begun so far."""

    def __init__(
        self, page: Page, pooling: Pooling, layers: Sequence[str], *, end_ids: tuple[int, ...]
    ) -> None:
        self._page, self._pooling, self._layers = page, pooling, layers
        self._end_ids = end_ids
        self._past = FinishedMeans(len(page.lengths))

    def __call__(
        self,
        window: Window,
        states: Mapping[str, Tensor],
        now: Tensor,
        predicted: Tensor,
        live: Tensor,
    ) -> dict[str, Tensor]:
        """Layer -> ``[B, D]`` after a step of the rows ``live``; the others repeat.

        Args:
            window: what was read, with its states ``[K, S, D]``.
            now: ``[K, L]`` tokens of each row's block after the step.
            predicted: ``[K, L]`` the same with every prediction.
        """
        states = {layer: states[layer] for layer in self._layers}
        shown = self._page.shown(window.columns, live)
        older = window.columns < window.start[:, None]
        self._past.finish(live, states, shown & older & window.fresh)
        own = {layer: value[:, -now.shape[1] :] for layer, value in states.items()}
        counted = shown[:, -now.shape[1] :]
        if self._pooling.positions == "generated":
            counted = counted & (now != self._page.mask_id)
        if self._pooling.positions == "content":
            ends = torch.isin(predicted, predicted.new_tensor(self._end_ids)) & counted
            counted = counted & (ends.long().cumsum(1) == 0)
        return self._past.mean(live, own, counted)
