"""What every sampler is: frozen settings, a few traits, and a generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Literal, final

import torch

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling.noise import Noise
from demur.types import Record, Step


class Sampler(ABC):
    """Settings of a sampler, and the generation they describe. Subclasses are frozen dataclasses.

    Attributes:
        name: name in specs and on the command line.
        releases: when a committed token may be shown: as soon as its ``"token"`` step has passed, or
            once the row has left the ``"block"`` that holds it.
        length_field: the setting that limits the length of a response.
    """

    name: ClassVar[str]
    releases: ClassVar[Literal["token", "block"]] = "block"
    length_field: ClassVar[str] = "gen_length"

    @property
    @abstractmethod
    def steps(self) -> int:
        """Most steps T a generation takes."""

    @property
    def new_tokens(self) -> int:
        """Most tokens a response can have."""
        found: int = getattr(self, self.length_field)
        return found

    @property
    def takes_back(self) -> bool:
        """Whether a committed token may still change."""
        return False

    @abstractmethod
    def run(
        self, model: LanguageModel, batch: Batch, record: Record, noise: Noise
    ) -> Iterator[Step]:
        """Yield a ``Step`` at a time; to stop generating, stop iterating.

        An iterator with a method ``drop(rows)`` is told which rows nobody follows any more.

        Args:
            model: from ``demur.load``.
            batch: encoded prompts.
            record: layers to keep and the pooling's name.
            noise: random numbers, one generator per row.
        """


@final
class InferenceStream(Iterator[Step]):
    """Steps of a generator, each computed in inference mode.

    A generator that is suspended inside ``torch.inference_mode`` would run its clean-up at interpreter
    exit, when torch is gone.
    """

    def __init__(self, generator: Iterator[Step]) -> None:
        self._generator = generator

    @torch.inference_mode()
    def __next__(self) -> Step:
        return next(self._generator)


#: Range of a setting -> whether a value lies in it.
RANGES: Mapping[str, Callable[[float], bool]] = {
    "at least 1": lambda value: value >= 1,
    "0 or more": lambda value: value >= 0,
    "above 0": lambda value: value > 0,
    "above 0 and at most 1": lambda value: 0 < value <= 1,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
    "between 0 and 1": lambda value: 0 < value < 1,
}


def require(sampler: Sampler, range_: str, *names: str) -> None:
    """Raise InputError unless these settings lie in a range of ``RANGES`` or are None."""
    for name in names:
        value = getattr(sampler, name)
        if value is not None and not RANGES[range_](value):
            raise InputError(f"{name} is {value}; it must be {range_}.")
