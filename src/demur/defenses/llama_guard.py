"""Llama Guard: a guard model reads prompt and response, and unsafe responses are blocked.

Inan et al., Llama Guard, arXiv:2312.06674; Llama Guard 3 model card:

    1. the model responds;
    2. the guard model reads prompt and response in its own chat template;
    3. the probability that its first token says unsafe is compared with a threshold.

An answer in another form is unparsed and blocks nothing. One forward pass of the guard per response.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from pydantic import InstanceOf

from demur.defenses.defended import Answers, Defended, Defense, Setup, screened
from demur.errors import InputError
from demur.judges.guard_model import LLAMA_GUARD, GuardModel
from demur.models import load
from demur.models.base import LanguageModel


@dataclass(frozen=True, kw_only=True)
class LlamaGuard(Defense):
    """Settings of Llama Guard.

    Attributes:
        guard: the guard model, or its name for ``demur.load``.
        threshold: in [0, 1]; a response is blocked if its probability of being unsafe is above it.
    """

    name: ClassVar[str] = "llama-guard"
    description: ClassVar[str] = "a guard model reads prompt and response and blocks unsafe ones"
    source: ClassVar[str] = "arXiv:2312.06674, Llama Guard 3 model card"
    guard: InstanceOf[LanguageModel] | str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold is {self.threshold}; a probability lies in [0, 1].")

    def defend(self, setup: Setup, undefended: Answers) -> Defended:
        """Block what the guard model calls unsafe.

        Raises:
            InputError: the guard model is not autoregressive, or an exchange is too long for it.
            ModelError: the guard model cannot be loaded, or lacks the words safe and unsafe.
        """
        guard = load(self.guard) if isinstance(self.guard, str) else self.guard
        judge = GuardModel(LLAMA_GUARD, guard)
        began = time.perf_counter()
        prompts = [trace.prompt.text for trace in undefended.traces]
        verdicts = judge.many([*zip(prompts, undefended.texts, strict=True)])
        scores = [verdict.score for verdict in verdicts]
        return screened(
            self.name,
            undefended,
            [score is not None and score > self.threshold for score in scores],
            [
                f"unparsed: {verdict.raw}"
                if verdict.score is None
                else f"unsafe {verdict.score:.3f}"
                for verdict in verdicts
            ],
            extra_passes=[1] * len(verdicts),
            seconds=undefended.seconds + time.perf_counter() - began,
        )
