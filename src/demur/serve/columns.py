"""Keys and values of a batch that rows join and leave, in the form of a transformers cache.

All rows write the same column at a time, so that a row of L tokens holds the last L columns and
transformers' own masks, sliding windows too, hold as they are. A row that joins is laid down so that
it ends where the others do; a row that leaves gives its place to the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

#: Columns of the first buffer.
_WIDTH = 256


@final
class Columns:
    """Buffers ``[rows, H, columns, d]`` a layer, of which the columns from the first row's beginning
    to the column being written are in use."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._starts: list[int] = []
        self._end = 0

    def append(self, layers: Sequence[tuple[Tensor, Tensor]], lengths: Sequence[int]) -> None:
        """Lay down more rows.

        Args:
            layers: keys and values ``[K, H, L, d]`` of each layer, padded on the left.
            lengths: ``K`` tokens of each row, at most L.
        """
        rows, longest = len(self._starts), max(lengths)
        for index, pair in enumerate(layers):
            if index not in self._kept:
                self._kept[index] = tuple(  # type: ignore[assignment]
                    new.new_zeros(1, new.shape[1], _WIDTH, new.shape[3]) for new in pair
                )
        self._lay_out(rows=rows + len(lengths), columns=longest)
        for index, pair in enumerate(layers):
            for buffer, new in zip(self._kept[index], pair, strict=True):
                place, begin = buffer[rows : rows + len(lengths)], self._end - longest
                # Nobody looks there, but a weight of 0 does not silence the NaN of an earlier row.
                place[:, :, :begin] = 0
                place[:, :, begin : self._end] = new[:, :, -longest:]
        self._starts += [self._end - length for length in lengths]

    def remove(self, row: int) -> None:
        """Drop a row; the last one takes its place."""
        last = len(self._starts) - 1
        for pair in self._kept.values():
            for buffer in pair:
                buffer[row] = buffer[last]
        self._starts[row] = self._starts[last]
        self._starts.pop()
        if not self._starts:
            self._kept.clear()
            self._end = 0

    def places(self) -> tuple[Tensor | None, Tensor]:
        """Make room for one token a row.

        Returns:
            ``[B, K]`` bool, columns that each row looks at, None where that is all of them; ``[B, 1]``
            position ids of the new tokens.
        """
        self._lay_out(rows=len(self._starts), columns=0)
        starts = torch.tensor(self._starts)[:, None]
        columns = torch.arange(self._first, self._end + 1)
        attention = None if len(set(self._starts)) == 1 else columns >= starts
        return attention, self._end - starts

    def advance(self) -> None:
        """The column that the last pass wrote stays."""
        self._end += 1

    def _lay_out(self, *, rows: int, columns: int) -> None:
        """Buffers with this many rows, ``columns`` before the end and one after it."""
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

    # ------------------------------------------------------------------ what a network asks a cache

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write ``[B, H, 1, d]`` and give all columns in use."""
        rows, first = len(keys), self._first
        for buffer, new in zip(self._kept[layer_idx], (keys, values), strict=True):
            buffer[:rows, :, self._end : self._end + 1] = new
        seen, said = (b[:rows, :, first : self._end + 1] for b in self._kept[layer_idx])
        return seen, said

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns in use before the one being written."""
        return self._end - self._first

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Column of the first new token among those in use."""
        return self.get_seq_length()

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Columns in use with the one being written, and where they begin."""
        return self.get_seq_length() + 1, 0
