"""What a defense is, what it defends, and what it returns: responses, reasons and exact cost."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from demur.generation import as_prompts, batches, default_sampler, steps
from demur.models.base import LanguageModel
from demur.sampling import Sampler
from demur.sampling.fitting import in_halves
from demur.types import Prompt, Record, Trace, Traces

R = TypeVar("R")

#: What a defense does with a response.
Action = Literal["kept", "blocked", "changed"]

#: Text in place of a blocked response.
REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True)
class Answers:
    """Generated traces and their cost.

    Attributes:
        traces: in prompt order.
        passes: ``[N]`` forward passes of each prompt, independent of the batch it was in.
        seconds: for the whole list.
    """

    traces: Traces
    passes: NDArray[np.int64]
    seconds: float

    @property
    def texts(self) -> list[str]:
        """What the model answered, including what it wrote into slots of the user turn."""
        return [trace.answer for trace in self.traces]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The model to defend, and how it generates.

    Attributes:
        model: from ``demur.load``.
        sampler: its sampler.
        record: layers, pooling and random seed.
        batch_size: prompts per batch; does not change results.
    """

    model: LanguageModel
    sampler: Sampler
    record: Record = Record()  # noqa: RUF009 (frozen)
    batch_size: int = 8

    def answer(self, prompts: Sequence[Prompt], *, sampler: Sampler | None = None) -> Answers:
        """Generate a response to each prompt and count forward passes.

        Args:
            prompts: prompts to answer.
            sampler: instead of ``self.sampler``.

        Raises:
            InputError: a prompt or setting that the model cannot take.
        """
        began = time.perf_counter()
        sampler = sampler or self.sampler
        found = self.batched(prompts, lambda part: self._batch(part, sampler), sampler=sampler)
        passes = np.array([count for _, count in found], dtype=np.int64)
        seconds = time.perf_counter() - began
        return Answers(Traces(tuple(trace for trace, _ in found)), passes, seconds)

    def batched(
        self,
        prompts: Sequence[Prompt],
        run: Callable[[Sequence[Prompt]], list[R]],
        *,
        sampler: Sampler,
    ) -> list[R]:
        """What ``run`` returns for each prompt, in prompt order; it is called with batches."""
        found: dict[int, R] = {}
        for places in batches(
            self.model, prompts, sampler, self.record, batch_size=self.batch_size
        ):
            found.update(zip(places, in_halves([prompts[i] for i in places], run), strict=True))
        return [found[i] for i in range(len(prompts))]

    def _batch(self, prompts: Sequence[Prompt], sampler: Sampler) -> list[tuple[Trace, int]]:
        """Traces of one batch and the passes of each; those before a step count for its rows."""
        stream = steps(self.model, prompts, sampler=sampler, record=self.record)
        counts = np.zeros(len(prompts), dtype=np.int64)
        before = 0
        with counted(self.model) as counter:
            for step in stream:
                running = step.running.cpu().numpy()
                # The running rows also pay for ended rows that the sampler still computes, rounded up.
                counts += math.ceil((counter.rows - before) / int(running.sum())) * running
                before = counter.rows
        return [*zip(stream.traces(), counts.tolist(), strict=True)]


class PassCounter:
    """Rows that went through a network since counting began."""

    rows = 0

    def add(self, network: Any, given: Any, output: Any) -> None:
        """A forward hook."""
        self.rows += len(output.last_hidden_state)


@contextmanager
def counted(model: LanguageModel) -> Iterator[PassCounter]:
    """Count forward passes of the network; a batch of n rows counts n."""
    counter = PassCounter()
    handle = model.body.register_forward_hook(counter.add)
    try:
        yield counter
    finally:
        handle.remove()


@dataclass(frozen=True)
class Outcome:
    """What a defense did with one prompt.

    Attributes:
        prompt: the prompt.
        response: what the user reads, including text in masked slots of the prompt.
        undefended: the same without the defense.
        action: ``kept`` leaves the response unchanged; ``blocked`` replaces it by a refusal;
            ``changed`` replaces it by another response of the model.
        reason: the numbers behind the decision.
        extra_passes: forward passes of any network beyond the undefended ones; negative if a blocked
            prompt saved the generation.
    """

    prompt: Prompt
    response: str
    undefended: str
    action: Action
    reason: str
    extra_passes: int


@dataclass(frozen=True)
class Defended:
    """What a defense did with a list of prompts.

    Attributes:
        defense: its name.
        outcomes: in prompt order.
        undefended_passes: forward passes without the defense.
        undefended_seconds: wall-clock time without the defense, in the same run.
        seconds: wall-clock time with the defense.
    """

    defense: str
    outcomes: tuple[Outcome, ...]
    undefended_passes: int
    undefended_seconds: float
    seconds: float

    @property
    def passes(self) -> int:
        """Forward passes with the defense, of all networks."""
        return self.undefended_passes + sum(one.extra_passes for one in self.outcomes)

    @property
    def responses(self) -> list[str]:
        """What the users read."""
        return [one.response for one in self.outcomes]

    def count(self, action: Action) -> int:
        """How many responses were ``kept``, ``blocked`` or ``changed``."""
        return sum(one.action == action for one in self.outcomes)


class Defense(ABC):
    """Settings of a defense; calling it generates defended responses. Subclasses are frozen
    dataclasses and define ``defend``."""

    name: ClassVar[str]
    description: ClassVar[str]
    source: ClassVar[str]

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt | str],
        *,
        sampler: Sampler | None = None,
        record: Record = Record(),  # noqa: B008 (frozen)
        batch_size: int = 8,
        undefended: Answers | None = None,
    ) -> Defended:
        """Generate a defended and an undefended response to each prompt.

        Args:
            model: the model to defend.
            prompts: prompts to answer.
            sampler: the model's default when None.
            record: layers, pooling and random seed.
            batch_size: prompts per batch; does not change results.
            undefended: the undefended answers under the same sampler and record, so that several
                defenses can share them; generated here when None.

        Raises:
            InputError: a prompt or setting that the model or the defense cannot take.
        """
        setup = self.prepare(
            Setup(
                model=model,
                sampler=sampler or default_sampler(model),
                record=record,
                batch_size=batch_size,
            )
        )
        return self.defend(setup, undefended or setup.answer(as_prompts(prompts)))

    def prepare(self, setup: Setup) -> Setup:
        """Check the setup, or change what is recorded of it, before anything is generated."""
        return setup

    @abstractmethod
    def defend(self, setup: Setup, undefended: Answers) -> Defended:
        """The defended responses, given the undefended ones."""


def screened(
    defense: str,
    undefended: Answers,
    flagged: Sequence[bool] | NDArray[np.bool_],
    reasons: Sequence[str],
    *,
    extra_passes: NDArray[np.int64] | Sequence[int],
    seconds: float,
) -> Defended:
    """Replace flagged responses by a refusal and keep the others.

    Args:
        defense: its name.
        undefended: the answers.
        flagged: ``[N]`` whether each is blocked.
        reasons: the reason of each.
        extra_passes: ``[N]`` forward passes beyond the undefended ones.
        seconds: wall-clock time with the defense.
    """
    responses = [
        None if blocked else answer
        for answer, blocked in zip(undefended.texts, flagged, strict=True)
    ]
    return defended(
        defense, undefended, responses, reasons, extra_passes=extra_passes, seconds=seconds
    )


def defended(
    defense: str,
    undefended: Answers,
    responses: Sequence[str | None],
    reasons: Sequence[str],
    *,
    extra_passes: NDArray[np.int64] | Sequence[int],
    seconds: float,
) -> Defended:
    """Responses in place of the undefended ones; None blocks. Other arguments as for ``screened``."""
    outcomes = tuple(
        Outcome(
            prompt=trace.prompt,
            response=REFUSAL if response is None else response,
            undefended=answer,
            action="blocked" if response is None else "kept" if response == answer else "changed",
            reason=reason,
            extra_passes=int(extra),
        )
        for trace, answer, response, reason, extra in zip(
            undefended.traces, undefended.texts, responses, reasons, extra_passes, strict=True
        )
    )
    return Defended(defense, outcomes, int(undefended.passes.sum()), undefended.seconds, seconds)
