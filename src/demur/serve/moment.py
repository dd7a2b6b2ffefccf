"""What a running batch gives after a step, whichever way it generates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from demur.serve.job import Job


@dataclass(frozen=True)
class Moment:
    """K rows after a step.

    Attributes:
        jobs: whose rows they are.
        phi: layer -> ``[K, D]`` pooled states of the step; None where rows only came to their end.
        settled: tokens of each row that can no longer change and were not given before, a token that
            ends the response included.
        ended: whether a row generates nothing more.
        view: place in ``jobs`` -> committed tokens and draft, both with -1 where nothing is known.
    """

    jobs: Sequence[Job]
    phi: Mapping[str, Tensor] | None
    settled: Sequence[Sequence[int]]
    ended: Sequence[bool]
    view: Callable[[int], tuple[list[int], list[int]]]


class Running(Protocol):
    """A batch that jobs join and leave while it runs."""

    @property
    def room(self) -> int:
        """How many jobs may join now."""

    def join(self, jobs: Sequence[Job]) -> None:
        """Generate these too, from the next step on."""

    def leave(self, jobs: Sequence[Job]) -> None:
        """Generate these no longer."""

    def advance(self) -> list[Moment]:
        """One step of everything that runs."""
