"""Llama Guard: a guard model reads the prompt and the response, and unsafe ones are replaced.

Inan et al., Llama Guard, arXiv:2312.06674; Llama Guard 3 model card:

    1. the model responds;
    2. the guard model reads prompt and response in its own chat template;
    3. the probability that its first token says unsafe is compared with a threshold.

An answer out of its form is unparsed and blocks nothing. One forward pass of the guard a response.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import InstanceOf

from demur.defenses.defended import Defended, screened
from demur.defenses.generation import Generation, generate
from demur.errors import InputError
from demur.judges.guard_model import LLAMA_GUARD, GuardModel
from demur.models import load
from demur.models.base import LanguageModel
from demur.sampling import Sampler, sampler_from
from demur.types import Prompt


@dataclass(frozen=True, kw_only=True)
class LlamaGuard:
    """Settings of Llama Guard.

    Attributes:
        guard: the guard model, or its name for ``demur.load``.
        threshold: a response whose probability of being unsafe is above it is blocked, in [0, 1].
    """

    name: ClassVar[str] = "llama-guard"
    description: ClassVar[str] = "a guard model reads prompt and response and blocks unsafe ones"
    source: ClassVar[str] = "arXiv:2312.06674, Llama Guard 3 model card"
    guard: InstanceOf[LanguageModel] | str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold is {self.threshold}; a probability lies in [0, 1].")

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
        """See ``Defense``.

        Raises:
            InputError: the guard model is not autoregressive, or an exchange is too long for it.
            ModelError: the guard model cannot be loaded, or does not know the words safe and unsafe.
        """
        guard = load(self.guard) if isinstance(self.guard, str) else self.guard
        judge = GuardModel(LLAMA_GUARD, guard)
        sampler = sampler or sampler_from(model.traits.sampler)
        said = undefended or generate(
            model, prompts, sampler=sampler, seed=seed, batch_size=batch_size
        )
        began = time.perf_counter()
        verdicts = judge.many(
            [(t.prompt.text, answer) for t, answer in zip(said.traces, said.answers, strict=True)]
        )
        scores = [verdict.score for verdict in verdicts]
        return screened(
            self.name,
            said,
            [score is not None and score > self.threshold for score in scores],
            [
                f"unparsed: {verdict.raw}"
                if verdict.score is None
                else f"unsafe {verdict.score:.3f}"
                for verdict in verdicts
            ],
            extra_passes=[1] * len(verdicts),
            extra_seconds=time.perf_counter() - began,
        )
