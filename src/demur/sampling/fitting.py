"""How many prompts fit into memory at once, found by trying."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from demur.models.base import LanguageModel
from demur.sampling.noise import RowNoise
from demur.sampling.pooling import find_pooling
from demur.types import Prompt, Step

if TYPE_CHECKING:
    from demur.sampling import Sampler

T = TypeVar("T")
R = TypeVar("R")

#: A CPU gains nothing from more prompts at once, and its memory cannot be tried without harm.
CPU_BATCH = 8

#: More gains nothing on any device measured.
MOST = 256


def largest_batch(model: LanguageModel, prompts: Sequence[Prompt], sampler: Sampler) -> int:
    """The largest power of two of the longest prompt whose first step fits; at most all of them.

    The first step reads the whole prompt, so it is the one that takes the memory.
    """
    if model.device.type == "cpu":
        return CPU_BATCH
    longest = max(prompts, key=lambda prompt: len(prompt.text))
    size = 1
    while 2 * size <= min(MOST, len(prompts)):
        try:
            first_step(model, [longest] * (2 * size), sampler)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            break
        size *= 2
    release()
    return size


def first_step(model: LanguageModel, prompts: Sequence[Prompt], sampler: Sampler) -> Step:
    """One step of a batch, as it will be run."""
    steps = sampler.run(
        model,
        model.encode(prompts),
        layers=("last",),
        pooling=find_pooling(model.traits.pooling),
        noise=RowNoise.seeded([0] * len(prompts)),
    )
    return next(steps)


def in_halves(items: Sequence[T], work: Callable[[Sequence[T]], list[R]]) -> list[R]:
    """Results of ``work`` for all items; what does not fit into memory is done in halves.

    Raises:
        RuntimeError, MemoryError: one item alone does not fit.
    """
    try:
        return work(items)
    except (RuntimeError, MemoryError) as error:
        if len(items) == 1 or not out_of_memory(error):
            raise
    release()
    middle = len(items) // 2
    return in_halves(items[:middle], work) + in_halves(items[middle:], work)


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on an accelerator or on the CPU."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        text in str(error).lower() for text in words
    )


def release() -> None:
    """Give what a failed try held back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> float:
    """Most memory taken so far in GiB: of the accelerator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
