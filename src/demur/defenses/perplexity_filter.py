"""Perplexity filter: a prompt that is unlikely text is not answered.

Jain et al., Baseline Defenses for Adversarial Attacks Against Aligned Language Models,
arXiv:2309.00614, section 4.1; Alon and Kamfonas, arXiv:2308.14132:

    1. a language model gives each prompt token its negative log-likelihood;
    2. whole: the mean over the prompt; windowed: the largest mean over consecutive windows, so that a
       short unlikely suffix does not hide behind fluent text;
    3. a prompt above the threshold is blocked.

Differs from the papers: the threshold is given, or taken as Jain et al. take it, as the largest
perplexity of a set of prompts (``calibrated``); the last window may be shorter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import InstanceOf

from demur.defenses.defended import REFUSAL, Defended, Outcome
from demur.defenses.generation import Generation, counted, generate
from demur.detectors.perplexity import surprisal
from demur.errors import InputError
from demur.models import load
from demur.models.base import LanguageModel
from demur.sampling import Sampler, sampler_from
from demur.types import Prompt


@dataclass(frozen=True, kw_only=True)
class PerplexityFilter:
    """Settings of the perplexity filter.

    Attributes:
        threshold: nats a token, the logarithm of a perplexity; a prompt above it is blocked.
        window: tokens a window; 0 takes the prompt as a whole.
        scorer: autoregressive model, or its name, that reads the prompts; the defended one when None.
    """

    name: ClassVar[str] = "perplexity"
    description: ClassVar[str] = (
        "prompts of high perplexity, whole or in a window, are not answered"
    )
    source: ClassVar[str] = "arXiv:2309.00614, arXiv:2308.14132"
    threshold: float
    window: int = 0
    scorer: InstanceOf[LanguageModel] | str | None = None

    def __post_init__(self) -> None:
        if self.window < 0:
            raise InputError(f"window is {self.window}; give tokens a window, or 0 for the whole.")

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
        """See ``Defense``; the undefended responses to blocked prompts are for comparison only.

        The seconds they take are counted out by their share of the passes.
        """
        scorer = self._scorer(model)
        began = time.perf_counter()
        with counted(scorer) as counter:
            scores = self.scores(scorer, prompts)
        reading = time.perf_counter() - began
        assert counter.rows == len(prompts)
        blocked = scores > self.threshold
        said = undefended or generate(
            model,
            prompts,
            sampler=sampler or sampler_from(model.traits.sampler),
            seed=seed,
            batch_size=batch_size,
        )
        outcomes = tuple(
            Outcome(
                prompt=prompt,
                response=REFUSAL if stopped else answer,
                undefended=answer,
                action="blocked" if stopped else "kept",
                reason=f"{score:.3f} nats a token",
                extra_passes=1 - int(passes) * int(stopped),
            )
            for prompt, answer, passes, stopped, score in zip(
                prompts, said.answers, said.passes, blocked, scores, strict=True
            )
        )
        answered = float(said.passes[~blocked].sum() / max(1, said.passes.sum()))
        return Defended(
            defense=self.name,
            outcomes=outcomes,
            undefended_passes=int(said.passes.sum()),
            undefended_seconds=said.seconds,
            seconds=reading + said.seconds * answered,
        )

    def scores(self, scorer: LanguageModel, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Nats a token of each prompt, of its worst window if there are windows: ``[N]``."""
        found = []
        for values in surprisal(scorer, [prompt.text for prompt in prompts]):
            size = self.window or max(1, len(values))
            windows = [values[i : i + size].mean() for i in range(0, len(values), size)]
            found.append(max(windows, default=0.0))
        return np.array(found, dtype=np.float32)

    def calibrated(self, model: LanguageModel, benign: Sequence[Prompt]) -> PerplexityFilter:
        """The same filter with the largest score of benign prompts as its threshold."""
        return replace(self, threshold=float(self.scores(self._scorer(model), benign).max()))

    def _scorer(self, model: LanguageModel) -> LanguageModel:
        if isinstance(self.scorer, str):
            return load(self.scorer)
        return self.scorer or model
