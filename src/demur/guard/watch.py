"""Stop a stream of steps, and say how much of each row may leave.

An autoregressive token may leave once its own step has passed: the state that produces it is read
before it is shown. A diffusion sampler works on a block at a time, and some take commits back, so a
block may leave once the row works on a later one, or has finished, and every step of it has passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import le
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from demur.guard.watcher import Reading
from demur.types import Step

if TYPE_CHECKING:
    from demur.guard.streaming import StreamingGuard


@dataclass(frozen=True, kw_only=True)
class Watched(Step):
    """A step that was read.

    Attributes:
        readings: of every row.
        released: of every row, how many response tokens, from the first, may be shown after this step.
            When the stream ends, the rest of every row that is not flagged may follow.
    """

    readings: Sequence[Reading]
    released: Sequence[int]


def watch(
    guard: StreamingGuard, steps: Iterator[Step], *, groups: Sequence[str] | None = None
) -> Iterator[Watched]:
    """See ``StreamingGuard.watch``."""
    watcher, release = None, None
    for step in steps:
        running = step.running.tolist()
        if watcher is None or release is None:
            watcher, release = guard.watcher(len(running)), Release(len(running))
            watcher.reset(range(len(running)), groups=groups)
        if all(running):
            readings = watcher.observe(step.phi, range(len(running)))
        else:
            phi = {layer: value[step.running] for layer, value in step.phi.items()}
            watcher.observe(phi, [row for row, on in enumerate(running) if on])
            readings = watcher.readings
        flagged = [reading.flagged_at > 0 for reading in readings]
        released = release(
            step.tokens.cpu().numpy(),
            None if step.block is None else step.block.tolist(),
            running=running,
            flagged=flagged,
        )
        yield Watched(**vars(step), readings=readings, released=released)
        if any(flagged) and all(map(le, running, flagged)):  # who runs is flagged
            return


@final
class Release:
    """How many tokens of each row may leave after each step."""

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
        """Take in a step: how many tokens of each row may leave; a flagged row's stay as they were.

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
