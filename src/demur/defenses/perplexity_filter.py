"""Perplexity filter: prompts of high perplexity are not answered.

Jain et al., Baseline Defenses for Adversarial Attacks Against Aligned Language Models,
arXiv:2309.00614, section 4.1; Alon and Kamfonas, arXiv:2308.14132:

    1. a language model gives each prompt token its negative log-likelihood;
    2. take the mean over the prompt, or the largest mean over consecutive windows, so that fluent text
       does not hide a short unlikely suffix;
    3. block a prompt above the threshold.

Differs from the papers: the threshold is given, or, as in Jain et al., the largest perplexity of a set
of prompts (``calibrated``); the last window may be shorter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import InstanceOf

from demur.defenses.defended import Answers, Defended, Defense, Setup, counted, screened
from demur.detectors.perplexity import surprisal
from demur.errors import InputError
from demur.models import load
from demur.models.base import LanguageModel
from demur.types import Prompt


@dataclass(frozen=True, kw_only=True)
class PerplexityFilter(Defense):
    """Settings of the perplexity filter.

    Attributes:
        threshold: in nats per token, the logarithm of a perplexity; a prompt above it is blocked.
        window: tokens per window; 0 takes the whole prompt.
        scorer: autoregressive model that scores the prompts, or its name; the defended model when
            None.
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
            raise InputError(
                f"window is {self.window}; give tokens per window, or 0 for the prompt."
            )

    def defend(self, setup: Setup, undefended: Answers) -> Defended:
        """Block unlikely prompts.

        A blocked prompt would not be answered, so its share of the generation's time is subtracted.
        """
        scorer = self._scorer(setup.model)
        prompts = [trace.prompt for trace in undefended.traces]
        began = time.perf_counter()
        with counted(scorer) as counter:
            scores = self.scores(scorer, prompts)
        reading = time.perf_counter() - began
        assert counter.rows == len(prompts)
        blocked = scores > self.threshold
        answered = float(undefended.passes[~blocked].sum() / max(1, undefended.passes.sum()))
        return screened(
            self.name,
            undefended,
            blocked,
            [f"{score:.3f} nats per token" for score in scores],
            extra_passes=1 - undefended.passes * blocked,
            seconds=reading + undefended.seconds * answered,
        )

    def scores(self, scorer: LanguageModel, prompts: Sequence[Prompt]) -> NDArray[np.float32]:
        """Nats per token of each prompt, or of its worst window: ``[N]``."""
        found = []
        for values in surprisal(scorer, [prompt.text for prompt in prompts]):
            size = self.window or max(1, len(values))
            windows = [values[i : i + size].mean() for i in range(0, len(values), size)]
            found.append(max(windows, default=0.0))
        return np.array(found, dtype=np.float32)

    def calibrated(self, model: LanguageModel, benign: Sequence[Prompt]) -> PerplexityFilter:
        """The same filter with the largest score of benign prompts as threshold."""
        return replace(self, threshold=float(self.scores(self._scorer(model), benign).max()))

    def _scorer(self, model: LanguageModel) -> LanguageModel:
        if isinstance(self.scorer, str):
            return load(self.scorer)
        return self.scorer or model
