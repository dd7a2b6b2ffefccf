"""Layout of block samplers: rows aligned at their first token, keys and values by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling.denoising import masked_text


@dataclass(frozen=True)
class Window:
    """The columns that a pass reads: the same number in every row, each row's block last.

    Attributes:
        block: ``[K]`` block of each row, counted from the first prompt token.
        start: ``[K]`` its first column.
        columns: ``[K, S]`` columns, 0 where a row needs fewer than S.
        positions: ``[K, S]`` their position ids.
        fresh: ``[K, S]`` bool, columns whose keys and values are not stored yet.
        attention: ``[K, 1, S, W]`` bool, blocks up to and including a column's own.
    """

    block: Tensor
    start: Tensor
    columns: Tensor
    positions: Tensor
    fresh: Tensor
    attention: Tensor


@final
@dataclass(frozen=True)
class BlockLayout:
    """Prompts and masked responses, with empty columns in front only where blocks start later.

    Attributes:
        prompt: the encoded prompts.
        empty: ``[B]`` columns before the first prompt token, which nothing attends to.
        first: ``[B]`` first response column.
        given: ``[B, W]`` bool, columns not masked at the beginning.
        mask_id: the mask token.
        gen_length: response positions R.
        block_length: positions of a block.
    """

    prompt: Batch
    empty: Tensor
    first: Tensor
    given: Tensor
    mask_id: int
    gen_length: int
    block_length: int

    def response(self, x: Tensor) -> Tensor:
        """``[B, W]`` columns -> ``[B, R]`` response positions, -1 where masked."""
        columns = torch.arange(self.gen_length, device=x.device)
        found = x.gather(1, self.first[:, None] + columns)
        return found.masked_fill(found == self.mask_id, -1)

    def response_block(self, block: Tensor) -> Tensor:
        """``[B]`` 0-based blocks, counted from the one where the response begins."""
        return (block - self.first // self.block_length).clamp(min=0)

    def write(self, x: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        """``x`` with values ``[K, L]`` at columns ``[K, L]`` of these rows."""
        return x.index_copy(0, rows, x[rows].scatter(1, columns, values))

    def filled_prompt(self, x: Tensor) -> Tensor:
        """``[B, P]`` prompts, padded as encoded, with the slots filled so far."""
        columns = torch.arange(x.shape[1], device=x.device)
        inside = (columns >= self.empty[:, None]) & (columns < self.first[:, None])
        return self.prompt.ids.masked_scatter(self.prompt.attention, x[inside])

    def shown(self, columns: Tensor, rows: Tensor) -> Tensor:
        """``[K, S]`` bool: columns of these rows that are response positions."""
        first = self.first[rows, None]
        return (columns >= first) & (columns < first + self.gen_length)

    def first_masked(self, x: Tensor) -> Tensor:
        """``[B]`` first block with a mask, 0 where there is none."""
        return (x == self.mask_id).long().argmax(1) // self.block_length

    def unfinished(self, x: Tensor, block: Tensor, end_ids: tuple[int, ...]) -> Tensor:
        """``[B]`` bool: a mask is left, and no block before ``block`` ``[B]`` holds an end token."""
        columns = torch.arange(x.shape[1], device=x.device)
        shown = self.shown(columns[None], torch.arange(len(x), device=x.device))
        before = columns < (block * self.block_length)[:, None]
        ended = torch.isin(x, x.new_tensor(end_ids)) & shown & before
        left = (x == self.mask_id) & (columns < self.first[:, None] + self.gen_length)
        return left.any(1) & ~ended.any(1)

    def window(self, rows: Tensor, block: Tensor, stored: Tensor) -> Window:
        """Columns from the first one not stored to the end of a block.

        Args:
            rows: ``[K]`` rows to read.
            block: ``[K]`` block of each.
            stored: ``[K]`` number of columns whose keys and values are stored.
        """
        end = (block + 1) * self.block_length
        size, width = int((end - stored).max()), int(end.max())
        columns = end[:, None] - size + torch.arange(size, device=block.device)
        fresh, columns = columns >= stored[:, None], columns.clamp(min=0)
        empty, asking = self.empty[rows, None], columns[:, None, :, None]
        keys = torch.arange(width, device=block.device)
        attention = keys // self.block_length <= asking // self.block_length
        # An empty column attends to everything, so that no softmax is empty.
        attention &= (keys >= empty[..., None, None]) | (asking < empty[..., None, None])
        positions = (columns - empty).clamp(min=0)
        return Window(block, block * self.block_length, columns, positions, fresh, attention)


def lay_out(
    model: LanguageModel,
    batch: Batch,
    *,
    gen_length: int,
    block_length: int,
    counted_from: Literal["prompt", "response"] = "prompt",
) -> tuple[BlockLayout, Tensor]:
    """Make the layout and its first content ``[B, W]``, whole blocks in every row.

    Args:
        counted_from: where the first block begins.

    Raises:
        InputError: not a block diffusion model, or a response template is too long.
    """
    if model.traits.attention != "block":
        raise InputError(
            f"{model.name} was not trained with blocks (its attention is "
            f"{model.traits.attention}). Use its own sampler: {model.traits.sampler['name']}."
        )
    first = masked_text(model, batch, gen_length)
    lengths = batch.attention.sum(1)
    empty = -lengths % block_length if counted_from == "response" else torch.zeros_like(lengths)
    begins = empty + lengths
    ends = -(-(begins + gen_length) // block_length) * block_length
    columns = torch.arange(int(ends.max()), device=lengths.device)
    source = columns + (first.start - begins)[:, None]
    x = first.tokens.gather(1, source.clamp(min=0, max=first.tokens.shape[1] - 1))
    # Any token but the mask, which would be predicted.
    x = x.masked_fill(columns < empty[:, None], int(first.mask_id == 0))
    x = x.masked_fill(columns >= (begins + gen_length)[:, None], first.mask_id)
    x = x.masked_fill(columns >= ends[:, None], -1)
    given = x != first.mask_id
    return BlockLayout(batch, empty, begins, given, first.mask_id, gen_length, block_length), x


@final
class BlockReader:
    """Reads each row's block, and once the finished blocks before it."""

    def __init__(
        self, model: LanguageModel, page: BlockLayout, x: Tensor, layers: Sequence[str]
    ) -> None:
        self._model, self._page = model, page
        self._layers = tuple(dict.fromkeys(["last", *layers]))
        self._cache = KeyValues(*x.shape)
        self._stored = page.empty.clone()

    def __call__(self, x: Tensor, block: Tensor, live: Tensor) -> tuple[Window, dict[str, Tensor]]:
        """Read the rows ``live`` up to their ``block``.

        Returns:
            The window and layer -> ``[K, S, D]`` states.
        """
        window = self._page.window(live, block[live], self._stored[live])
        states = self._model.states(
            x[live].gather(1, window.columns),
            window.attention,
            layers=self._layers,
            positions=window.positions,
            cache=self._cache.at(live, window),
        )
        self._stored[live] = window.start
        return window, states


@final
class KeyValues:
    """Keys and values by column, with the interface of a transformers cache.

    Each pass writes the columns of its window, so the next pass overwrites those of an unfinished
    block. Stored columns are not written again.
    """

    def __init__(self, rows: int, width: int) -> None:
        self._rows = torch.arange(rows)
        self._width = width
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._target, self._until = self._rows, 0

    def at(self, rows: Tensor, window: Window) -> KeyValues:
        """Drop all rows but these, and write this window's columns next."""
        if len(rows) < len(self._rows):
            stay = torch.isin(self._rows, rows.cpu()).nonzero()[:, 0].to(rows.device)
            self._kept = {i: (k[stay], v[stay]) for i, (k, v) in self._kept.items()}
            self._rows = rows.cpu()
        self._target = window.columns.masked_fill(~window.fresh, self._width)
        self._until = window.attention.shape[-1]
        return self

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write ``[K, H, S, d]`` and return all columns that the window attends to."""
        if layer_idx not in self._kept:
            shape = (*keys.shape[:2], self._width + 1, keys.shape[3])
            self._kept[layer_idx] = (keys.new_zeros(shape), values.new_zeros(shape))
        place = self._target.to(keys.device)[:, None, :, None].expand_as(keys)
        kept = self._kept[layer_idx]
        for buffer, new in zip(kept, (keys, values), strict=True):
            buffer.scatter_(2, place, new)
        return kept[0][:, :, : self._until], kept[1][:, :, : self._until]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """0, because every pass gives its positions."""
        return 0
