"""Samplers: each turns a batch of prompts into a stream of ``Step`` (see ``demur.types``).

To add one, derive a frozen dataclass of its settings from ``Sampler`` in a file of its own and add it
to ``SAMPLERS``; other packages name the class under the entry point group ``demur.samplers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from demur.plugins import known, made
from demur.sampling.autoregressive import Autoregressive
from demur.sampling.block import Block
from demur.sampling.canvas import Canvas
from demur.sampling.choice import Noise, RowNoise
from demur.sampling.dream import Dream
from demur.sampling.masked import Masked
from demur.sampling.pooling import POOLINGS, Pooling, find_pooling
from demur.sampling.sampler import Sampler

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
    "known_samplers",
    "sampler_from",
    "sampler_with",
    "spec",
]


#: Every sampler that ships with demur.
SAMPLERS: Mapping[str, type[Sampler]] = {
    sampler.name: sampler for sampler in (Autoregressive, Masked, Dream, Block, Canvas)
}


def known_samplers() -> Mapping[str, type[Sampler]]:
    """Our own samplers and those of plug-ins, by name."""
    return known("samplers", SAMPLERS)


def sampler_from(values: Mapping[str, Any]) -> Sampler:
    """Make a sampler from plain data: ``{"name": "masked", "steps": 32, ...}``.

    Raises:
        InputError: an unknown sampler or setting, a value of a wrong kind, or settings that do not
            fit each other.
    """
    sampler: Sampler = made(known_samplers(), values, what="sampler")
    return sampler


def sampler_with(default: Mapping[str, Any], given: Mapping[str, Any]) -> Sampler:
    """The default sampler with the settings given; another sampler with its own defaults.

    Where the default is one block, another length is one block too.

    Args:
        default: spec of a model's default sampler, such as ``model.traits.sampler``.
        given: settings to change; ``name`` chooses another sampler.

    Raises:
        InputError: an unknown sampler or setting.
    """
    if given.get("name", default["name"]) != default["name"]:
        return sampler_from(given)
    settings = {**default, **given}
    one_block = default.get("block_length", 0) == default.get("gen_length")
    if one_block and "gen_length" in given and "block_length" not in given:
        settings["block_length"] = given["gen_length"]
    return sampler_from(settings)


def spec(sampler: Sampler) -> dict[str, Any]:
    """The sampler as plain data, with its name; the inverse of ``sampler_from``."""
    return {"name": sampler.name, **asdict(sampler)}  # type: ignore[call-overload]
