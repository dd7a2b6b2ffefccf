"""What a defense gives back: each prompt's response, what was done to it, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from demur.defenses.generation import Generation
from demur.models.base import LanguageModel
from demur.sampling import Sampler
from demur.types import Prompt

#: What a defense does with a response.
Action = Literal["kept", "blocked", "changed"]

#: What is said in place of a blocked response.
REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True)
class Outcome:
    """What a defense did with one prompt.

    Attributes:
        prompt: the prompt.
        response: what the user reads; of a prompt with masked slots, what filled them too.
        undefended: the same without the defense.
        action: ``kept`` leaves the response as it was; ``blocked`` puts a refusal in its place;
            ``changed`` is another response of the model's.
        reason: what the decision was made from.
        extra_passes: forward passes of any network beyond the undefended ones; negative where a
            blocked prompt saved the generation.
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
        undefended_seconds: wall-clock time of that, in the same run.
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


class Defense(Protocol):
    """Settings of a defense, and the defended generation."""

    name: ClassVar[str]
    description: ClassVar[str]
    source: ClassVar[str]

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        sampler: Sampler | None = None,
        seed: int = 0,
        batch_size: int = 8,
        undefended: Generation | None = None,
    ) -> Defended:
        """Generate a defended response to each prompt, and an undefended one to compare.

        Args:
            model: the model to defend.
            prompts: what it is asked.
            sampler: the model's default when None.
            seed: of everything random.
            batch_size: prompts generated together; changes no result.
            undefended: the undefended generation of these prompts under this sampler and seed, so
                that several defenses share it; made here when None.

        Raises:
            InputError: a prompt or setting does not fit the model or the defense.
        """


def screened(
    defense: str,
    generation: Generation,
    flagged: Sequence[bool] | NDArray[np.bool_],
    reasons: Sequence[str],
    *,
    extra_passes: NDArray[np.int64] | Sequence[int],
    extra_seconds: float,
) -> Defended:
    """Put a refusal in place of flagged responses and leave the others untouched."""
    outcomes = tuple(
        Outcome(
            prompt=trace.prompt,
            response=REFUSAL if blocked else answer,
            undefended=answer,
            action="blocked" if blocked else "kept",
            reason=reason,
            extra_passes=int(extra),
        )
        for trace, answer, blocked, reason, extra in zip(
            generation.traces, generation.answers, flagged, reasons, extra_passes, strict=True
        )
    )
    return Defended(
        defense=defense,
        outcomes=outcomes,
        undefended_passes=int(generation.passes.sum()),
        undefended_seconds=generation.seconds,
        seconds=generation.seconds + extra_seconds,
    )
