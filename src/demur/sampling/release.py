"""Which response tokens may be shown while a generation still runs.

An autoregressive token may be shown once its own step has passed, because the state that produces it
is known before the token is. A diffusion sampler works on one block at a time, and some samplers take
commits back. So a block may be shown once the row works on a later block, or has finished, and every
step of the block has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray


@final
class Release:
    """Counts how many tokens of each row may be shown after each step."""

    def __init__(self, rows: int) -> None:
        self._released, self._whole, self._block = [0] * rows, [0] * rows, [0] * rows

    def __call__(
        self,
        tokens: NDArray[np.integer],
        block: Sequence[int] | None,
        *,
        running: Sequence[bool],
        flagged: Sequence[bool],
    ) -> list[int]:
        """Add one step and return the number of tokens to show; a flagged row's number stays.

        Args:
            tokens: ``[B, R]`` committed tokens, -1 where none is.
            block: ``B`` numbers, the block each row worked on; None where there are no blocks.
            running: ``B`` times whether the step belongs to the row.
            flagged: ``B`` times whether the row is.
        """
        if block is None:  # token by token, and nothing is taken back
            for row, seen in enumerate(self._released):
                while not flagged[row] and seen < tokens.shape[1] and tokens.item(row, seen) >= 0:
                    self._released[row] = seen = seen + 1
            return list(self._released)
        for row, place in enumerate(tokens.argmin(axis=1).tolist()):
            # What was there when a block was left is final: nothing goes back to it.
            if not flagged[row]:
                left = not running[row] or block[row] != self._block[row]
                self._released[row] = self._whole[row] if left else self._released[row]
            prefix = place if tokens.item(row, place) < 0 else tokens.shape[1]
            self._whole[row], self._block[row] = prefix, block[row]
        return list(self._released)
