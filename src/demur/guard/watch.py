"""Stop a stream of steps, and say how much of each row may be shown (``demur.sampling.release``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import le
from typing import TYPE_CHECKING

from demur.guard.watcher import Reading
from demur.sampling.release import Release
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
