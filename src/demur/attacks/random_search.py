"""Random search on the log-probability of the response's first word.

Andriushchenko, Croce, Flammarion, arXiv:2404.02151, section 3. The steps are in
``demur.attacks.search``; the score is the log-probability that the response begins with a given word,
and a search stops when that is likely enough. For masked diffusion models, which the paper does not
attack, we take the probability in the first draft.

Differs from the paper: no hand-written template around the request (apply ``refusal_suppression`` or
another attack first); a search stops by the probability alone (``stop_at``, 0.9), while the released
code asks a judge once the word is the likeliest, or at random once its probability is 0.1, or 0.02
without rising.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

from demur.attacks.likelihood import opening_log_probabilities, openings
from demur.attacks.search import Objective, Scored
from demur.attacks.suffix_search import SuffixSearch
from demur.models.base import LanguageModel
from demur.types import Prompt


@final
@dataclass(frozen=True, kw_only=True)
class RandomSearch(SuffixSearch):
    """Settings; see ``SuffixSearch``. The released scripts use up to 10,000 queries."""

    name: ClassVar[str] = "random_search"
    description: ClassVar[str] = "Searches for a suffix that makes a compliant first word likely."
    source: ClassVar[str] = "Andriushchenko et al. 2024, arXiv:2404.02151"

    def objective(self, target: LanguageModel, *, seed: int) -> Objective:
        """Log-probability of the opening."""
        tokens, enough = openings(target, self.opening), math.log(self.stop_at)

        def score(prompts: list[Prompt]) -> list[Scored]:
            found = opening_log_probabilities(target, prompts, tokens)
            return [Scored(value, self.stop_at < 1 and value >= enough) for value in found]

        return score
