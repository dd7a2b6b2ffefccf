"""Samplers: each a generator of ``Step`` (see ``demur.types``). To add one, write a frozen dataclass
of its settings with ``name``, ``new_tokens`` and ``run`` in a file of its own and add it to
``SAMPLERS``. One without a cache has ``passes`` for ``run`` (see ``demur.sampling.passes``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from demur.models.base import LanguageModel
from demur.models.batch import Batch
from demur.sampling.autoregressive import Autoregressive
from demur.sampling.block import Block
from demur.sampling.canvas import Canvas
from demur.sampling.dream import Dream
from demur.sampling.masked import Masked
from demur.sampling.noise import Noise, RowNoise
from demur.sampling.pooling import POOLINGS, Pooling, find_pooling
from demur.settings import made
from demur.types import Step

__all__ = [
    "POOLINGS",
    "SAMPLERS",
    "Autoregressive",
    "Block",
    "Canvas",
    "Dream",
    "Masked",
    "Noise",
    "Pooling",
    "RowNoise",
    "Sampler",
    "find_pooling",
    "sampler_from",
    "spec",
]


class Sampler(Protocol):
    """Settings of a sampler, and the generation they describe."""

    name: ClassVar[str]

    @property
    def steps(self) -> int:
        """Most steps T a generation takes."""

    @property
    def new_tokens(self) -> int:
        """Most tokens a response can have."""

    def run(
        self,
        model: LanguageModel,
        batch: Batch,
        *,
        layers: Sequence[str],
        pooling: Pooling,
        noise: Noise,
    ) -> Iterator[Step]:
        """Yield a ``Step`` at a time; stop iterating to stop generating."""


SAMPLERS: Mapping[str, Any] = {
    sampler.name: sampler for sampler in (Autoregressive, Masked, Dream, Block, Canvas)
}


def sampler_from(values: Mapping[str, Any]) -> Sampler:
    """Make a sampler from plain data: ``{"name": "masked", "steps": 32, ...}``.

    Raises:
        InputError: an unknown sampler or setting, a value of a wrong kind, or settings that do not
            fit each other.
    """
    sampler: Sampler = made(SAMPLERS, values, what="sampler")
    return sampler


def spec(sampler: Sampler) -> dict[str, Any]:
    """The sampler as plain data, with its name; the inverse of ``sampler_from``."""
    return {"name": sampler.name, **asdict(sampler)}  # type: ignore[call-overload]
