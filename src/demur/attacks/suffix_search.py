"""Attacks that search for a suffix, and ``random_search``, which makes the first word likely.

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
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, final

from demur.attacks.attacked import Attack, attacked, fill, require_target
from demur.attacks.likelihood import opening_log_probabilities, openings
from demur.attacks.search import Objective, Scored, Search, Suffixes, search_all
from demur.errors import InputError
from demur.models.base import LanguageModel
from demur.types import Prompt


@dataclass(frozen=True, kw_only=True)
class SuffixSearch(Attack):
    """A search over a suffix; subclasses define the objective.

    Attributes:
        opening: word with which the response should begin.
        template: the user turn, with ``{goal}`` and ``{suffix}``.
        length: tokens of the suffix.
        width: longest run of tokens that one change replaces.
        queries: candidates per restart.
        restarts: maximum restarts per prompt.
        candidates: candidates per batch.
        stop_at: probability of the opening at which a search stops, in (0, 1]; 1 never stops.
        state: file in which progress is saved, and from which the same search resumes.
    """

    needs_target: ClassVar[bool] = True
    opening: str = "Sure"
    template: str = "{goal} {suffix}"
    length: int = 25
    width: int = 16
    queries: int = 1000
    restarts: int = 1
    candidates: int = 8
    stop_at: float = 0.9
    state: Path | None = None

    def __post_init__(self) -> None:
        for name in ("length", "width", "queries", "restarts", "candidates"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 < self.stop_at <= 1:
            raise InputError(f"stop_at is {self.stop_at}; it must be above 0 and at most 1.")
        fill(self.template, goal="", suffix="")

    @abstractmethod
    def objective(self, target: LanguageModel, *, seed: int) -> Objective:
        """The score to maximise."""

    def mark(self) -> dict[str, object]:
        """The settings as plain data, which identify a search."""
        return {f: v for f, v in asdict(self).items() if f != "state"}

    def __call__(
        self, prompts: Sequence[Prompt], *, target: LanguageModel | None = None, seed: int = 0
    ) -> list[Prompt]:
        """Return each prompt with the best suffix; ``search`` also returns how it was found.

        Raises:
            InputError: no target or one that is not supported, a prompt that is too long or has
                masked slots, or a state file of another search.
        """
        found = self.search(prompts, target=require_target(target, self.name), seed=seed)
        return [self.prompt_with(p, s.best.suffix) for p, s in zip(prompts, found, strict=True)]

    def search(
        self, prompts: Sequence[Prompt], *, target: LanguageModel, seed: int = 0
    ) -> list[Search]:
        """One finished search per prompt; errors as for ``__call__``."""
        return search_all(
            prompts,
            Suffixes(
                vocabulary=plain_tokens(target),
                text_of=target.decode,
                prompt_with=self.prompt_with,
                length=self.length,
                width=self.width,
            ),
            self.objective(target, seed=seed),
            queries=self.queries,
            restarts=self.restarts,
            candidates=self.candidates,
            seed=seed,
            state=self.state,
            mark={"attack": self.name, **self.mark(), "target": target.revision},
        )

    def prompt_with(self, prompt: Prompt, suffix: str) -> Prompt:
        """The prompt with a suffix."""
        return attacked(
            prompt, self.name, text=fill(self.template, goal=prompt.text, suffix=suffix)
        )


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


def plain_tokens(model: LanguageModel) -> list[int]:
    """Printable tokens of the vocabulary, without special tokens."""
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = [i for i in range(len(tokenizer)) if i not in special]
    texts = tokenizer.batch_decode([[i] for i in ids])
    return [i for i, t in zip(ids, texts, strict=True) if t.isprintable() and t.strip("\ufffd ")]
