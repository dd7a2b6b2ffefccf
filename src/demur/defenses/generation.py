"""Generate, and count exactly what it took: forward passes of each prompt, and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.generation import batches, steps
from demur.judges.reading import answer_of
from demur.models.base import LanguageModel
from demur.sampling import Sampler
from demur.sampling.fitting import in_halves
from demur.types import Prompt, Record, Step, Trace, Traces


@dataclass(frozen=True)
class Generation:
    """Traces and what they cost.

    Attributes:
        traces: in prompt order.
        passes: ``[N]`` forward passes each prompt took part in; what shares its batch changes none.
        seconds: of the whole list.
    """

    traces: Traces
    passes: NDArray[np.int64]
    seconds: float

    @property
    def answers(self) -> list[str]:
        """What the model said to each prompt, in the slots of its user turn too."""
        return [answer_of(trace) for trace in self.traces]


class Passes:
    """Rows that went through a network since counting began."""

    rows = 0

    def add(self, network: Any, given: Any, output: Any) -> None:
        """A forward hook."""
        self.rows += len(output.last_hidden_state)


@contextmanager
def counted(model: LanguageModel) -> Iterator[Passes]:
    """Count every forward pass of the network, a batch of n as n."""
    passes = Passes()
    handle = model.body.register_forward_hook(passes.add)
    try:
        yield passes
    finally:
        handle.remove()


def generate(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    sampler: Sampler,
    seed: int,
    batch_size: int,
    pooling: str | None = None,
    layers: Sequence[str] = ("last",),
) -> Generation:
    """Trace a list of prompts and count; arguments and errors as for ``demur.trace``."""
    began = time.perf_counter()
    record = Record(layers=tuple(layers), pooling=pooling, seed=seed)
    traces: dict[int, Trace] = {}
    passes = np.zeros(len(prompts), dtype=np.int64)
    for places in batches(model, prompts, sampler, batch_size=batch_size):
        with counted(model) as counter:
            shares = _Shares(counter)

            def follow(part: Sequence[Prompt], shares: _Shares = shares) -> list[Trace]:
                generation = steps(model, part, sampler=sampler, record=record)
                for _ in shares.follow(generation):
                    pass
                return list(generation.traces())

            traced = in_halves([prompts[i] for i in places], follow)
        traces.update(zip(places, traced, strict=True))
        passes[places] = np.concatenate(shares.finished)
    ordered = Traces(tuple(traces[i] for i in range(len(prompts))))
    return Generation(ordered, passes, time.perf_counter() - began)


class _Shares:
    """Which rows the passes belong to: those before a step, to the rows that it ran for."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        #: ``[B]`` counts of each stream that ended; a batch that did not fit comes in two.
        self.finished: list[NDArray[np.int64]] = []

    def follow(self, steps: Iterator[Step]) -> Iterator[Step]:
        before = self._passes.rows
        counts = np.zeros(0, dtype=np.int64)
        for step in steps:
            running = step.running.cpu().numpy()
            done = self._passes.rows - before
            before = self._passes.rows
            counts = counts if len(counts) else np.zeros(len(running), dtype=np.int64)
            each, rest = divmod(done, int(running.sum()))
            assert not rest, f"{done} passes for {running.sum()} rows"
            counts += each * running
            yield step
        self.finished.append(counts)
