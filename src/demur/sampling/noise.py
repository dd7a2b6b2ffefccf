"""Random numbers of a sampler: one generator a row, so that a row's numbers never depend on which
other rows share its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """Where samplers get their random numbers."""

    def uniform(self, where: Tensor, width: int) -> Tensor:
        """Uniform numbers in [0, 1) for the true entries of ``where`` ``[B, L]``, row by row.

        Returns ``[where.sum(), width]`` float64 on ``where``'s device.
        """

    def choose(self, probabilities: Tensor) -> Tensor:
        """Draw an index from each of ``[B, V]`` or ``[B, C, V]`` probabilities, row by row.

        Returns ``[B]`` or ``[B, C]`` int64.
        """

    def integers(self, count: int, high: int) -> Tensor:
        """``[B, count]`` int64 drawn evenly from 0 to ``high`` - 1, row by row."""

    def keep(self, rows: Tensor) -> Noise:
        """The noise of some rows only (``[K]`` int64 indices)."""


class RowNoise:
    """One generator a row, seeded by the run's seed and the row's own key."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = list(generators)

    @classmethod
    def seeded(cls, seeds: Sequence[int]) -> RowNoise:
        """One generator for each seed (0 to 2**63 - 1)."""
        return cls([torch.Generator().manual_seed(seed) for seed in seeds])

    def uniform(self, where: Tensor, width: int) -> Tensor:
        """See ``Noise.uniform``."""
        counts = where.sum(1).tolist()
        drawn = [
            torch.rand((count, width), generator=generator, dtype=torch.float64)
            for count, generator in zip(counts, self._generators, strict=True)
        ]
        return torch.cat(drawn).to(where.device)

    def choose(self, probabilities: Tensor) -> Tensor:
        """See ``Noise.choose``."""
        drawn = [
            torch.multinomial(row, 1, generator=generator)
            for row, generator in zip(probabilities.cpu(), self._generators, strict=True)
        ]
        return torch.stack(drawn)[..., 0].to(probabilities.device)

    def integers(self, count: int, high: int) -> Tensor:
        """See ``Noise.integers``."""
        drawn = [torch.randint(high, (count,), generator=g) for g in self._generators]
        return torch.stack(drawn)

    def keep(self, rows: Tensor) -> RowNoise:
        """See ``Noise.keep``."""
        return RowNoise([self._generators[i] for i in rows.tolist()])
