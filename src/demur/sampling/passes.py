"""Forward passes that a generation asks for, so that several generations can share them.

A loop written this way yields each ``Pass`` that it needs, for which it is sent the states, and each
``Step``, for which it may be sent the rows that nobody follows any more: it gives them up.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demur.models.base import LanguageModel
from demur.models.batch import Batch
from demur.sampling.noise import Noise
from demur.sampling.pooling import Pooling, find_pooling
from demur.sampling.sampler import Sampler
from demur.types import Record, Step


@dataclass(frozen=True)
class Pass:
    """What is to be read, without a cache.

    Attributes:
        tokens: ``[K, L]`` int64.
        attention: ``[K, L]`` bool, False on padding; None when nothing is padded.
        layers: whose states are wanted.
    """

    tokens: Tensor
    attention: Tensor | None
    layers: Sequence[str]


Passes = Generator[Pass | Step, Any, None]


class Sharing(Sampler):
    """A sampler whose passes may be read together with those of other generations."""

    @abstractmethod
    def passes(
        self,
        model: LanguageModel,
        batch: Batch,
        *,
        layers: Sequence[str],
        pooling: Pooling,
        noise: Noise,
    ) -> Passes:
        """What the generation asks for and yields."""

    def run(
        self, model: LanguageModel, batch: Batch, record: Record, noise: Noise
    ) -> Iterator[Step]:
        """Yield a ``Step`` at a time; see ``passes``."""
        pooling = find_pooling(record.pooling)
        asked = self.passes(model, batch, layers=record.layers, pooling=pooling, noise=noise)
        return alone(model, asked)


@torch.inference_mode()
def alone(model: LanguageModel, passes: Passes) -> Iterator[Step]:
    """The steps of one generation."""
    for found in passes:
        while isinstance(found, Pass):
            found = passes.send(model.states(found.tokens, found.attention, layers=found.layers))
        yield found


def next_steps(
    model: LanguageModel, generations: Sequence[Passes], left: Sequence[Sequence[int]]
) -> list[Step | None]:
    """The next step of each generation, None where it is over.

    Passes of the same size class are read in one.

    Args:
        model: whose they are.
        generations: none of them waiting for a pass.
        left: of each, the rows that nobody follows; none before its first step.
    """
    found = [_resumed(each, rows) for each, rows in zip(generations, left, strict=True)]
    while asked := {place: each for place, each in enumerate(found) if isinstance(each, Pass)}:
        alike: dict[int, list[int]] = defaultdict(list)
        for place, each in asked.items():
            alike[size_class(each.tokens.shape[1])].append(place)
        for places in alike.values():
            states = together(model, [asked[place] for place in places])
            for place, own in zip(places, states, strict=True):
                found[place] = generations[place].send(own)
    return [each for each in found if not isinstance(each, Pass)]


def _resumed(generation: Passes, left: Sequence[int]) -> Pass | Step | None:
    try:
        return generation.send(list(left) or None)
    except StopIteration:
        return None


def size_class(length: int) -> int:
    """Rows whose lengths have the same class are at most doubled by padding."""
    return length.bit_length()


def together(model: LanguageModel, passes: Sequence[Pass]) -> list[dict[str, Tensor]]:
    """Read all in one pass, shorter rows padded on the left.

    Returns:
        of each pass layer -> ``[K, L, D]``.
    """
    width = max(each.tokens.shape[1] for each in passes)
    attention = None
    if any(each.attention is not None or each.tokens.shape[1] < width for each in passes):
        attention = torch.cat([_widened(_real(each), width) for each in passes])
    tokens = torch.cat([_widened(each.tokens, width) for each in passes])
    layers = dict.fromkeys(layer for each in passes for layer in each.layers)
    states, found, first = model.states(tokens, attention, layers=tuple(layers)), [], 0
    for each in passes:
        rows, length = each.tokens.shape
        place = slice(first, first + rows), slice(width - length, None)
        found.append({layer: states[layer][place] for layer in each.layers})
        first += rows
    return found


def _real(asked: Pass) -> Tensor:
    if asked.attention is None:
        return torch.ones_like(asked.tokens, dtype=torch.bool)
    return asked.attention


def _widened(value: Tensor, width: int) -> Tensor:
    """With zeros, or False, on the left."""
    return torch.nn.functional.pad(value, (width - value.shape[1], 0))
