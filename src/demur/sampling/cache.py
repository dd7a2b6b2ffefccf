"""Keys and values of a batch that rows join and leave, with the interface of a transformers cache.

All rows write the same column at a time, so a row of L tokens holds the last L columns, and the
masks of transformers (sliding windows too) stay correct. A row that joins is placed so that it ends
where the others do. When a row leaves, the last row takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from demur.models.base import LanguageModel

#: Columns of the first buffer if the length is not known.
_WIDTH = 256


def rows_can_join(model: LanguageModel) -> bool:
    """Whether all layers keep only keys and values, at any offset; state-space layers do not."""
    from transformers import DynamicCache

    kinds = getattr(model.net.config.get_text_config(), "layer_types", None) or ()
    layers = DynamicCache(config=model.net.config).layers
    usual = all(type(layer).__name__.startswith("Dynamic") for layer in layers)
    return usual and set(kinds) <= {"full_attention", "sliding_attention"}


@final
class RowCache:
    """Buffers ``[rows, H, columns, d]`` per layer.

    In use are the columns from the first one of any row to the column being written.

    Args:
        lengths: tokens of each row, padded on the left to the longest.
        more: most tokens to generate; None where that is not known.

    Attributes:
        net: the object to pass to the network.
    """

    #: Asked by transformers 4.57 (OPT).
    is_compileable = False

    def __init__(self, lengths: Sequence[int], *, more: int | None) -> None:
        longest = max(lengths)
        self.net = self
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._starts, self._end = [longest - length for length in lengths], 0
        self._width = max(_WIDTH, 2 * longest) if more is None else longest + more

    def append(self, other: RowCache) -> None:
        """Add the rows of another cache, which are copied."""
        rows, more, longest = len(self._starts), len(other._starts), other._end
        self._lay_out(rows=rows + more, columns=longest)
        begin = self._end - longest
        for index, pair in other._kept.items():
            for buffer, new in zip(self._kept[index], pair, strict=True):
                place = buffer[rows : rows + more]
                # These columns are masked, but 0 * NaN is NaN, so clear what an earlier row left.
                place[:, :, :begin] = 0
                place[:, :, begin : self._end] = new[:more, :, :longest]
        self._starts += [begin + start for start in other._starts]

    def keep(self, order: Sequence[int]) -> None:
        """Reorder: new row i is old row ``order[i]``. Only the last rows may change places."""
        for row, source in enumerate(order):
            if row != source:
                for pair in self._kept.values():
                    for buffer in pair:
                        buffer[row] = buffer[source]
        self._starts = [self._starts[row] for row in order]

    def columns(self) -> tuple[Tensor | None, Tensor]:
        """Make room for one token per row.

        Returns:
            ``[B, K]`` bool, columns that each row attends to, None where that is all of them;
            ``[B, 1]`` position ids of the new tokens.
        """
        self._lay_out(rows=len(self._starts), columns=0)
        starts = torch.tensor(self._starts)[:, None]
        columns = torch.arange(self._first, self._end + 1)
        attention = None if len(set(self._starts)) == 1 else columns >= starts
        return attention, self._end - starts

    def advance(self, tokens: int) -> None:
        """Keep what the last pass wrote: this number of tokens per row."""
        self._end += tokens

    def _lay_out(self, *, rows: int, columns: int) -> None:
        """Make the buffers hold this many rows, ``columns`` before the end and one after it."""
        first = self._first
        used = self._end - first
        end = max(used, columns)
        have = next(iter(self._kept.values()))[0].shape
        if rows <= have[0] and columns <= self._end < have[2]:
            return
        height = have[0] if rows <= have[0] else 2 * rows
        width = max(_WIDTH, 2 * (end + 1)) if 2 * end >= have[2] else have[2]
        for index, pair in self._kept.items():
            made = []
            for old in pair:
                new = old.new_zeros(height, old.shape[1], width, old.shape[3])
                new[: have[0], :, end - used : end] = old[:, :, first : self._end]
                made.append(new)
            self._kept[index] = (made[0], made[1])
        self._starts = [start - self._end + end for start in self._starts]
        self._end = end

    @property
    def _first(self) -> int:
        return min(self._starts, default=self._end)

    # ------------------------------------------------------------------ called by the network

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write ``[B, H, S, d]`` and return all columns in use."""
        if layer_idx not in self._kept:
            made = [
                new.new_zeros(len(new), new.shape[1], self._width, new.shape[3])
                for new in (keys, values)
            ]
            self._kept[layer_idx] = made[0], made[1]
        rows, first, end = len(keys), self._first, self._end + keys.shape[2]
        for buffer, new in zip(self._kept[layer_idx], (keys, values), strict=True):
            buffer[:rows, :, self._end : end] = new
        seen, said = (buffer[:rows, :, first:end] for buffer in self._kept[layer_idx])
        return seen, said

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns in use before the ones being written."""
        return max(self._end - self._first, 0)

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Column of the first new token among those in use."""
        return self.get_seq_length()

    def get_mask_sizes(self, new: Any, *_: Any) -> tuple[int, int]:
        """Columns in use with those being written, and where they begin.

        ``new`` is the number of new tokens, or their positions in transformers 4.57.
        """
        return self.get_seq_length() + (new if isinstance(new, int) else len(new)), 0


@final
class FixedCache:
    """transformers' own cache, for layers that keep a state; all rows start together.

    Its methods are those of ``RowCache``.
    """

    def __init__(self, model: LanguageModel, lengths: Sequence[int]) -> None:
        from transformers import DynamicCache

        self.net = DynamicCache(config=model.net.config)
        self._lengths, self._seen, self._longest = torch.tensor(lengths), 0, max(lengths)

    def columns(self) -> tuple[Tensor | None, Tensor]:
        starts = (self._longest - self._lengths)[:, None]
        attention = torch.arange(self._seen + 1) >= starts
        return None if attention.all() else attention, self._seen - starts

    def advance(self, tokens: int) -> None:
        self._seen += tokens

    def keep(self, order: Sequence[int]) -> None:
        rows = torch.tensor(order)
        self.net.reorder_cache(rows)
        self._lengths = self._lengths[rows]
