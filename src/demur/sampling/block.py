"""Block diffusion: blocks from left to right, masked diffusion inside each.

Exact keys and values of finished blocks are stored.

SDAR, arXiv:2510.06303, ``generate.py``; LLaDA 2.0, arXiv:2512.15745, ``generate``:

    1. prompt and response are cut into blocks; counted from the first prompt token, the prompt's
       tail shares a block with the beginning of the response;
    2. a position attends to its own block and to every block before it;
    3. each step predicts the masked positions of the first unfinished block and commits the most
       confident; with a threshold, also what is above it;
    4. a finished block never changes: its keys and values are stored;
    5. generation stops after a block with an end token.

LLaDA 2.1, arXiv:2602.08676, edits: a committed token of the block is replaced by another one that is
predicted with enough confidence, until a step without masks changes nothing.

Differs from upstream: batched, no row waits for another; the next block's first step stores a
finished block, not a pass of its own; no more positions are committed than are masked (SDAR's rules
overwrite the prompt's tail when a step's share is larger); the mask token is never predicted. The
last block can reach past ``gen_length``; positions there are neither shown nor pooled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

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
    nucleus,
    spread,
)
from demur.sampling.layout import BlockLayout, BlockReader, Window, lay_out
from demur.sampling.pooling import FinishedMeans, Pooling, find_pooling, require_own_positions
from demur.sampling.sampler import InferenceStream, Sampler, require, require_known
from demur.types import Record, Step


@dataclass(frozen=True, kw_only=True)
class Block(Sampler):
    """Settings of the block sampler (defaults: SDAR ``generate.py``, but greedy).

    Attributes:
        gen_length: response positions R.
        block_length: positions of a block; the one the model was trained with.
        block_steps: denoising steps of a block without a threshold.
        remasking: rule that decides what is committed; ``left_to_right`` is SDAR's ``sequential``.
        threshold: also commit every position with a confidence above it, in (0, 1); None keeps the
            static schedule.
        temperature: sampling temperature; 0 takes the most likely token.
        top_k: draw from the most likely k tokens only; 0 is off.
        top_p: draw from the nucleus of this probability mass only, in (0, 1].
        edit_threshold: replace a committed token of the block by another with a probability above
            this, in [0, 1); None never does.
        edit_steps: maximum steps that edit a block without masks.
        counted_from: where the first block begins: SDAR and LLaDA-2 count from the prompt, the
            block-causal A2D models (bd3lm) from the response.
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
    edit_threshold: float | None = None
    edit_steps: int = 16
    counted_from: Literal["prompt", "response"] = "prompt"

    def __post_init__(self) -> None:
        require_known(self, "remasking", get_args(Remasking))
        require(self, "at least 1", "gen_length", "block_length", "block_steps", "edit_steps")
        require(self, "0 or more", "temperature", "top_k")
        require(self, "between 0 and 1", "threshold")
        require(self, "at least 0 and below 1", "edit_threshold")
        require(self, "above 0 and at most 1", "top_p")

    @property
    def steps(self) -> int:
        """Most steps a generation takes; with a threshold it takes fewer."""
        blocks = -(-(self.gen_length + self.block_length - 1) // self.block_length)
        editing = 0 if self.edit_threshold is None else self.edit_steps
        return blocks * (min(self.block_steps, self.block_length) + editing)

    @property
    def takes_back(self) -> bool:
        return self.edit_threshold is not None

    def run(
        self, model: LanguageModel, batch: Batch, record: Record, noise: Noise
    ) -> Iterator[Step]:
        """Generate; see ``block``."""
        return InferenceStream(block(model, batch, self, record, noise))


def block(
    model: LanguageModel, batch: Batch, settings: Block, record: Record, noise: Noise
) -> Iterator[Step]:
    """Yield a ``Step`` for each denoising iteration.

    Drafts are -1 in blocks that have not begun. The pooled positions are those of the blocks begun so
    far; while only slots inside the prompt are filled, the mean of the block is used for the response.

    Raises:
        InputError: not a block diffusion model, a response template is too long, or a pooling that
            takes the state before each position.
    """
    page, x = lay_out(
        model,
        batch,
        gen_length=settings.gen_length,
        block_length=settings.block_length,
        counted_from=settings.counted_from,
    )
    pooling = find_pooling(record.pooling)
    require_own_positions(pooling)
    read, rule = BlockReader(model, page, x, record.layers), BlockRule(settings, page)
    means = BlockMeans(page, pooling, record.layers, end_ids=model.traits.end_ids)
    size, block = settings.block_length, page.first_masked(x)
    busy, blocks = torch.zeros_like(block, dtype=torch.bool), torch.zeros_like(block)
    for index in count(1):
        block = torch.where(busy, block, page.first_masked(x))
        running = busy | page.unfinished(x, block, model.traits.end_ids)
        if not running.any():
            return
        live = running.nonzero()[:, 0]
        window, states = read(x, block, live)
        columns = window.columns[:, -size:]
        now = x[live].gather(1, columns)
        asked = rule.asks(now, page.given[live].gather(1, columns))
        logits = model.logits(states["last"][:, -size:][asked]).float()
        decision = rule(logits, asked, now, window.block, live, noise.keep(live))
        draft = page.response(page.write(x, live, columns, decision.draft))
        x = page.write(x, live, columns, decision.tokens)
        busy = busy.index_copy(0, live, decision.busy)
        phi = means(window, states, decision, live)
        blocks = torch.where(running, page.response_block(block), blocks)
        tokens = page.response(x)
        yield Step(index, tokens, draft, phi, running, page.filled_prompt(x), blocks)


@final
class BlockMeans:
    """Means over the positions of the blocks begun so far."""

    def __init__(
        self,
        page: BlockLayout,
        pooling: Pooling,
        layers: Sequence[str],
        *,
        end_ids: tuple[int, ...],
    ) -> None:
        self._page, self._pooling, self._layers = page, pooling, layers
        self._end_ids = end_ids
        self._past = FinishedMeans(len(page.first))

    def __call__(
        self, window: Window, states: Mapping[str, Tensor], decision: BlockDecision, live: Tensor
    ) -> dict[str, Tensor]:
        """Layer -> ``[B, D]`` after a step of the rows ``live``; other rows repeat."""
        size, states = self._page.block_length, {layer: states[layer] for layer in self._layers}
        shown = self._page.shown(window.columns, live)
        older = window.columns < window.start[:, None]
        self._past.finish(live, states, shown & older & window.fresh)
        own = {layer: value[:, -size:] for layer, value in states.items()}
        counted = shown[:, -size:]
        if self._pooling.positions == "generated":
            counted = counted & (decision.tokens != self._page.mask_id)
        if self._pooling.positions == "content":
            ends = torch.isin(decision.draft, live.new_tensor(self._end_ids)) & counted
            counted = counted & (ends.long().cumsum(1) == 0)
        return self._past.mean(live, own, counted)


@dataclass(frozen=True)
class BlockDecision:
    """Result of one step for each row's block.

    Attributes:
        tokens: ``[K, L]`` the block after the step, masks included.
        draft: ``[K, L]`` the same with a prediction for every mask.
        busy: ``[K]`` bool, the block continues even without masks.
    """

    tokens: Tensor
    draft: Tensor
    busy: Tensor


@final
class BlockRule:
    """Predict every masked position of a block, commit the most confident, edit what is committed.

    Each row counts the steps of its own block.
    """

    def __init__(self, settings: Block, page: BlockLayout) -> None:
        self._settings, self._mask_id = settings, page.mask_id
        self._block = torch.full_like(page.first, -1)
        self._taken, self._edited = torch.zeros_like(page.first), torch.zeros_like(page.first)

    def asks(self, now: Tensor, given: Tensor) -> Tensor:
        """``[K, L]`` bool, positions of the block whose logits the rule needs."""
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
        """One step of the rows ``live``.

        Args:
            logits: ``[N, V]`` of the positions that ``asks`` names.
            asked: ``[K, L]`` bool, these positions.
            now: ``[K, L]`` tokens of each row's block.
            block: ``[K]`` its number.
            noise: random numbers of these rows.
        """
        settings, waiting = self._settings, now == self._mask_id
        entered = block != self._block[live]
        taken = self._taken[live].masked_fill(entered, 0)
        self._block[live], self._taken[live] = block, taken + 1
        length = torch.full_like(taken, settings.block_length)
        if settings.temperature > 0:
            # SDAR takes the nucleus of what top_k left.
            logits = nucleus(heated(logits, settings.temperature), top_k=settings.top_k)
            logits = nucleus(logits, top_p=settings.top_p)
            chosen = drawn(logits, self._mask_id, asked, noise)
        else:
            chosen = most_likely(logits, self._mask_id)
        predicted = now.masked_scatter(asked, chosen)
        score = spread(confidence(settings.remasking, logits, chosen, asked, noise), asked)
        score = score.masked_fill(~waiting, -torch.inf)
        commit = most_confident(score, commits_at(length, taken, settings.block_steps))
        if settings.threshold is not None:
            commit |= score > settings.threshold
        edit = torch.zeros_like(commit)
        if settings.edit_threshold is not None:
            sure = spread(confidence("low_confidence", logits, chosen, asked, noise), asked)
            edit = (sure > settings.edit_threshold) & ~waiting & (predicted != now)
        edited = self._edited[live].masked_fill(entered, 0) + (~waiting.any(1)).long()
        self._edited[live] = edited
        tokens = torch.where(commit | edit, predicted, now)
        draft = torch.where(waiting, predicted, tokens)
        idle = ~waiting.any(1) & (~edit.any(1) | (edited >= settings.edit_steps))
        return BlockDecision(tokens, draft, ~idle & (settings.edit_threshold is not None))
