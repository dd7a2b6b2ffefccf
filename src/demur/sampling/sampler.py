"""The base class of samplers (settings, traits, generation), and when tokens may be shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray

from demur.errors import InputError
from demur.models.base import Batch, LanguageModel
from demur.sampling.choice import Noise
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

        If the iterator has a method ``drop(rows)``, it is called with rows that are no longer needed.

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


def require_known(sampler: Sampler, name: str, known: Sequence[str]) -> None:
    """Raise InputError unless a setting is one of the known values."""
    if getattr(sampler, name) not in known:
        value = getattr(sampler, name)
        raise InputError(f"Unknown {name} {value!r}. Known: {', '.join(known)}.")


@final
class Release:
    """Counts how many response tokens of each row may be shown while the generation still runs.

    An autoregressive token may be shown once its own step has passed, because the state that produces
    it is known before the token is. A diffusion sampler works on one block at a time, and some samplers
    take commits back. So a block may be shown once the row works on a later block, or has finished, and
    every step of the block has passed.
    """

    def __init__(self, rows: int) -> None:
        self._released, self._whole, self._block = [0] * rows, [0] * rows, [0] * rows

    def __call__(
        self,
        tokens: NDArray[np.integer],
        block: Sequence[int] | None,
        *,
        running: Sequence[bool],
        flagged: Sequence[bool],
    ) -> list[int]:
        """Add one step and return the number of tokens to show; a flagged row's number stays.

        Args:
            tokens: ``[B, R]`` committed tokens, -1 where none is.
            block: ``B`` numbers, the block each row worked on; None where there are no blocks.
            running: ``B`` times whether the step belongs to the row.
            flagged: ``B`` times whether the row is.
        """
        if block is None:  # token by token, and nothing is taken back
            for row, seen in enumerate(self._released):
                while not flagged[row] and seen < tokens.shape[1] and tokens.item(row, seen) >= 0:
                    self._released[row] = seen = seen + 1
            return list(self._released)
        for row, place in enumerate(tokens.argmin(axis=1).tolist()):
            # The text of a block is final once the row has left it: no later step changes it.
            if not flagged[row]:
                left = not running[row] or block[row] != self._block[row]
                self._released[row] = self._whole[row] if left else self._released[row]
            prefix = place if tokens.item(row, place) < 0 else tokens.shape[1]
            self._whole[row], self._block[row] = prefix, block[row]
        return list(self._released)
