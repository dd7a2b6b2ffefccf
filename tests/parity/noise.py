"""The random numbers of upstream samplers, handed to ours."""

from __future__ import annotations

import torch
from torch import Tensor


class MultinomialNoise:
    """What ``torch.multinomial`` takes for one row, from one seeded generator.

    It takes the largest of p / e with an exponential number e for each entry, masked or not.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def uniform(self, where: Tensor) -> Tensor:
        """See ``demur.sampling.Noise``."""
        raise NotImplementedError("none of the upstream samplers draws positions here")

    def choose(self, logits: Tensor, where: Tensor) -> Tensor:
        """See ``demur.sampling.Noise``."""
        waits = torch.empty(where.shape[1], logits.shape[1]).exponential_(generator=self._generator)
        return (logits.softmax(-1) / waits[where[0]]).argmax(-1)

    def integers(self, count: int, high: int) -> Tensor:
        """See ``demur.sampling.Noise``."""
        return torch.randint(high, (1, count), generator=self._generator)

    def keep(self, rows: Tensor) -> MultinomialNoise:
        """See ``demur.sampling.Noise``; there is one row."""
        return self

    def join(self, others: object) -> MultinomialNoise:
        """See ``demur.sampling.Noise``."""
        raise NotImplementedError("one row alone")
