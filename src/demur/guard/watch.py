"""Stop a stream of steps, and say how much of each row may leave.

An autoregressive token may leave once its own step has passed: the state that produces it is read
before it is shown. A diffusion sampler works on a block at a time, and some take commits back, so a
block may leave once the row works on a later one, or has finished, and every step of it has passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
        reading: of every row, ``[B]`` each.
        released: ``[B]`` how many response tokens, from the first, may be shown after this step.
            When the stream ends, the rest of every row that is not flagged may follow.
    """

    reading: Reading
    released: NDArray[np.int64]


def watch(
    guard: StreamingGuard, steps: Iterator[Step], *, groups: Sequence[str] | None = None
) -> Iterator[Watched]:
    """See ``StreamingGuard.watch``."""
    watcher, release = None, None
    for step in steps:
        running = step.running.cpu().numpy()
        if watcher is None or release is None:
            watcher, release = guard.watcher(len(running)), Release(len(running))
            watcher.reset(slice(None), groups=groups)
        if running.all():
            reading = watcher.observe(step.phi, slice(None))
        else:
            phi = {layer: value[step.running] for layer, value in step.phi.items()}
            watcher.observe(phi, np.flatnonzero(running))
            reading = watcher.read()
        yield Watched(
            **{name: getattr(step, name) for name in Step.__dataclass_fields__},
            reading=reading,
            released=release(
                step.tokens.cpu().numpy(),
                None if step.block is None else step.block.cpu().numpy(),
                running=running,
                flagged=reading.flagged,
            ),
        )
        if (reading.flagged | ~running).all():
            return


@final
class Release:
    """How many tokens of each row may leave after each step."""

    def __init__(self, rows: int) -> None:
        self._released = np.zeros(rows, dtype=np.int64)
        self._whole = np.zeros(rows, dtype=np.int64)
        self._block: NDArray[np.integer] = np.zeros(rows, dtype=np.int64)

    def __call__(
        self,
        tokens: NDArray[np.integer],
        block: NDArray[np.integer] | None,
        *,
        running: NDArray[np.bool_],
        flagged: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Take in a step: how many tokens may leave ``[B]``; a flagged row's stay where they were.

        Args:
            tokens: ``[B, R]`` committed tokens, -1 where none is.
            block: ``[B]`` block each row worked on; None where there are no blocks.
            running: ``[B]`` rows the step belongs to.
            flagged: ``[B]``.
        """
        masked = tokens < 0
        prefix = np.where(masked.any(axis=1), masked.argmax(axis=1), tokens.shape[1])
        passed = prefix
        if block is not None:
            # What was there when a block was left is final: nothing goes back to it.
            left = ~running | (block != self._block)
            passed = np.where(left, self._whole, self._released)
            self._whole, self._block = prefix, block
        self._released = np.where(flagged, self._released, passed)
        return self._released
