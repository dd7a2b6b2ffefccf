"""The random numbers of upstream samplers, handed to ours."""

from __future__ import annotations

import torch
from torch import Tensor


class MultinomialNoise:
    """What ``torch.multinomial`` takes for a whole block of one row, from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, where: Tensor, width: int) -> Tensor:
        """See ``demur.sampling.Noise``; drawn for every position, given for those asked for."""
        waits = torch.empty(where.shape[1], width).exponential_(generator=self._generator)
        return torch.exp(-waits.double())[where[0]]

    def choose(self, probabilities: Tensor) -> Tensor:
        """See ``demur.sampling.Noise``."""
        return torch.multinomial(probabilities, 1, generator=self._generator)[:, 0]

    def keep(self, rows: Tensor) -> MultinomialNoise:
        """See ``demur.sampling.Noise``; there is one row."""
        return self
