"""Random numbers of a sampler: one generator a row, so that a row's numbers never depend on which
other rows share its batch. They are drawn on the CPU and are the same on every device.

A token is drawn by races: of numbers that wait, each for an exponential time divided by its weight, the
first is number i with probability weight i. Its group of about sqrt(V) neighbours races first, then the
members of the group that won. That is the categorical distribution exactly, takes 2 sqrt(V) random
numbers instead of V (two groups of 356 for LLaDA's 126,464 tokens), and a rounding error of the
probabilities changes a token about as rarely as it is large, which one number looked up among
cumulated probabilities would not give.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad


class Noise(Protocol):
    """Where samplers get their random numbers."""

    def uniform(self, where: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) for the N true entries of ``where`` ``[B, L]``, row by row.

        Returns ``[N]`` float64 on ``where``'s device.
        """

    def choose(self, logits: Tensor, where: Tensor) -> Tensor:
        """Draw an index by softmax from each of ``[N, V]`` logits, which stand for the true entries
        of ``where`` ``[B, L]``, row by row.

        Returns ``[N]`` int64 on the logits' device.
        """

    def integers(self, count: int, high: int) -> Tensor:
        """``[B, count]`` int64 drawn evenly from 0 to ``high`` - 1, row by row."""

    def keep(self, rows: Tensor) -> Noise:
        """The noise of some rows only (``[K]`` int64 indices)."""


def row_seed(seed: int, key: str) -> int:
    """Seed of one row, in [0, 2**63), from the run's seed and the row's key."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") >> 1


class RowNoise:
    """One generator a row, seeded by the run's seed and the row's own key."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self._generators = list(generators)

    @classmethod
    def seeded(cls, seeds: Sequence[int]) -> RowNoise:
        """One generator for each seed (0 to 2**63 - 1)."""
        return cls([torch.Generator().manual_seed(seed) for seed in seeds])

    @classmethod
    def of(cls, seed: int, keys: Sequence[str]) -> RowNoise:
        """One generator for each key, such as a prompt's id, of a run with this seed."""
        return cls.seeded([row_seed(seed, key) for key in keys])

    def uniform(self, where: Tensor) -> Tensor:
        """See ``Noise.uniform``."""
        return self._numbers(where, 1).to(where.device)[:, 0]

    def choose(self, logits: Tensor, where: Tensor) -> Tensor:
        """See ``Noise.choose``."""
        vocabulary = logits.shape[1]
        side = math.isqrt(vocabulary - 1) + 1
        weights = pad(logits.float().softmax(-1), (0, side * side - vocabulary))
        weights = weights.view(-1, side, side)
        waits = -torch.log(self._numbers(where, 2 * side)).to(logits.device)
        group = (weights.sum(-1) / waits[:, :side]).argmax(-1)
        members = weights[torch.arange(len(group), device=group.device), group]
        return group * side + (members / waits[:, side:]).argmax(-1)

    def integers(self, count: int, high: int) -> Tensor:
        """See ``Noise.integers``."""
        drawn = [torch.randint(high, (count,), generator=g) for g in self._generators]
        return torch.stack(drawn)

    def keep(self, rows: Tensor) -> RowNoise:
        """See ``Noise.keep``."""
        return RowNoise([self._generators[i] for i in rows.tolist()])

    def _numbers(self, where: Tensor, width: int) -> Tensor:
        """``[N, width]`` float64 uniform numbers on the CPU."""
        drawn = [
            torch.rand((count, width), generator=generator, dtype=torch.float64)
            for count, generator in zip(where.sum(1).tolist(), self._generators, strict=True)
        ]
        return torch.cat(drawn)
