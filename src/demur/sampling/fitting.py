"""Find by trial how many prompts fit into memory at once."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import torch

from demur.models.base import LanguageModel
from demur.sampling.choice import RowNoise
from demur.types import Prompt, Record, Step

if TYPE_CHECKING:
    from demur.sampling.sampler import Sampler

T = TypeVar("T")
R = TypeVar("R")

#: Most prompts tried on a CPU: more gain nothing, and filling its memory would disturb other programs.
CPU_BATCH = 8

#: Most prompts tried on a device: larger batches gained nothing on any device measured.
MOST = 256


def largest_batch(
    model: LanguageModel,
    longest: Prompt,
    sampler: Sampler,
    *,
    record: Record,
    prompts: int,
) -> int:
    """The largest power of two of copies of the longest prompt that fits; at most ``prompts``.

    Tries two steps: the first reads the whole prompt, the second also holds what the first one kept
    (a cache, a canvas's logits). A batch whose cache outgrows the memory later is split in halves.
    """
    if model.device.type == "cpu":
        return CPU_BATCH

    def try_out(size: int) -> None:
        run_steps(model, [longest] * size, sampler, count=2, record=record)

    return largest_that_fits(min(MOST, prompts), try_out)


def largest_that_fits(most: int, try_out: Callable[[int], object]) -> int:
    """The largest power of two up to ``most`` for which ``try_out`` finds memory; 1 is not tried.

    Raises:
        Exception: whatever else ``try_out`` raises.
    """
    size = 1
    while 2 * size <= most:
        try:
            try_out(2 * size)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            break
        size *= 2
    release()
    return size


def run_steps(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    sampler: Sampler,
    *,
    count: int,
    record: Record,
) -> list[Step]:
    """The first ``count`` steps of a batch."""
    noise = RowNoise.of(record.seed, [prompt.id for prompt in prompts])
    steps = sampler.run(model, model.encode(prompts), record, noise)
    return list(islice(steps, count))


def in_halves(items: Sequence[T], work: Callable[[Sequence[T]], list[R]]) -> list[R]:
    """Results of ``work`` for all items; a batch that does not fit into memory is split in halves.

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
    """Return the memory of a failed try to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> float:
    """Peak memory so far in GiB: of the accelerator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
