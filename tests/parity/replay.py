"""The same random numbers for an upstream sampler and for ours, from numpy's frozen generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
from torch import Tensor


class Replay:
    """A sampler's noise that draws what an upstream sampler drew for one prompt.

    Upstream takes the largest of p / -log u, with a number u for each entry of the vocabulary.
    ``everywhere`` lists what it draws for the whole canvas and not for the masked positions alone:
    ``"tokens"`` (a number a vocabulary entry), ``"positions"`` (one).
    """

    def __init__(
        self, seed: int, *, everywhere: tuple[Literal["tokens", "positions"], ...] = ()
    ) -> None:
        self._random = np.random.RandomState(seed)
        self._everywhere = everywhere

    def uniform(self, where: Tensor) -> Tensor:
        """See ``demur.sampling.Noise.uniform``."""
        return self._numbers(where, 1, "positions" in self._everywhere)[:, 0]

    def choose(self, logits: Tensor, where: Tensor) -> Tensor:
        """See ``demur.sampling.Noise.choose``."""
        uniform = self._numbers(where, logits.shape[1], "tokens" in self._everywhere)
        return (logits.double() - torch.log(-torch.log(uniform))).argmax(-1)

    def keep(self, rows: Tensor) -> Replay:
        """See ``demur.sampling.Noise.keep``; there is one row."""
        return self

    def join(self, others: object) -> Replay:
        """See ``demur.sampling.Noise.join``."""
        raise NotImplementedError("one row alone")

    def _numbers(self, where: Tensor, width: int, everywhere: bool) -> Tensor:
        if everywhere:
            return torch.from_numpy(self._random.random_sample((*where.shape, width)))[where]
        return torch.from_numpy(self._random.random_sample((int(where.sum()), width)))


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Let torch draw from numpy's generator; a draw of k of n is the k largest of p / -log u."""
    random = np.random.RandomState(seed)

    def rand(*shape: Any, **_: Any) -> Tensor:
        size = shape[0] if shape and isinstance(shape[0], tuple) else shape
        return torch.from_numpy(random.random_sample(size))

    def rand_like(other: Tensor, **_: Any) -> Tensor:
        return rand(tuple(other.shape))

    def multinomial(p: Tensor, num_samples: int, *_: Any, **__: Any) -> Tensor:
        return (p / -rand(tuple(p.shape)).log()).topk(num_samples).indices

    def sample(self: Any) -> Tensor:
        return (self.probs / -rand(tuple(self.probs.shape)).log()).argmax(-1)

    with (
        mock.patch("torch.rand", rand),
        mock.patch("torch.rand_like", rand_like),
        mock.patch("torch.multinomial", multinomial),
        mock.patch("torch.distributions.Categorical.sample", sample),
    ):
        yield
