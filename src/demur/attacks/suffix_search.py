"""Random search over a suffix of tokens, and ``random_search``, which makes the first word likely.

Andriushchenko, Croce, Flammarion, Jailbreaking Leading Safety-Aligned LLMs with Simple Adaptive
Attacks, arXiv:2404.02151, section 3; code tml-epfl/llm-adaptive-attacks ``main.py``, ``utils.py``:

    1. start with a suffix of n tokens;
    2. replace a run of tokens at a random place by random tokens; the run gets shorter with the number
       of queries (``width_at``);
    3. keep the change if the score rises: in ``random_search`` the log-probability that the response
       begins with a given word; for masked diffusion models, which the paper does not attack, in the
       first draft;
    4. stop when that is likely enough, or restart when a restart's queries are used up.

Differs from the paper: several changes of the same suffix are scored in one batch and the best is kept
(the paper has ``candidates`` = 1); a suffix starts from random tokens in each restart instead of
strings found in earlier searches; no hand-written template around the request (apply
``refusal_suppression`` or another attack first); all random numbers depend on seed, prompt, restart and
number of queries, so an interrupted search resumes to the same end. Differs from the released code: a
search stops by the probability alone (``stop_at``, 0.9), while that code asks a judge once the word is
the likeliest, or at random once its probability is 0.1, or 0.02 without rising; a run ends at the end
of the suffix, so the suffix keeps its length; only printable tokens are used; the schedule by
probability (``--schedule_prob``) and giving up when the word is not among the top five are left out.
"""

from __future__ import annotations

import json
import logging
import math
import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, final

from demur.attacks.attacked import Attack, attacked, fill, require_target
from demur.attacks.likelihood import opening_log_probabilities, openings
from demur.errors import InputError
from demur.files import write_atomically
from demur.models.base import LanguageModel
from demur.types import Prompt

_LOG = logging.getLogger(__name__)

#: After each of these numbers of queries the longest run is halved.
_UNTIL = (10, 25, 50, 100, 500)


class Scored(NamedTuple):
    """A prompt's score (higher is better for the attacker), and whether it is good enough to stop."""

    score: float
    reached: bool


class Best(NamedTuple):
    """The best suffix of a prompt after a number of queries, over all restarts."""

    queries: int
    score: float
    suffix: str


#: Scores prompts, in order.
Objective = Callable[[list[Prompt]], list[Scored]]


@dataclass(frozen=True)
class Search:
    """State of the search for one prompt.

    Attributes:
        history: each improvement, in order.
        queries: candidates scored, over all restarts.
        reached: whether a candidate was good enough to stop.
        restart: 0-based; the number of restarts when all are used up.
        asked: candidates scored in this restart.
        tokens: best suffix of this restart.
        score: its score.
    """

    history: tuple[Best, ...] = ()
    queries: int = 0
    reached: bool = False
    restart: int = 0
    asked: int = 0
    tokens: tuple[int, ...] = ()
    score: float = -math.inf

    @property
    def best(self) -> Best:
        """The best suffix found."""
        return self.history[-1]

    def within(self, queries: int) -> Best:
        """The best suffix found within this many queries.

        Raises:
            InputError: no candidate was scored by then.
        """
        found = [best for best in self.history if best.queries <= queries]
        if not found:
            first = self.history[0].queries if self.history else "any"
            raise InputError(
                f"Nothing was scored within {queries} queries; ask for {first} or more."
            )
        return found[-1]


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
        objective, vocabulary = self.objective(target, seed=seed), plain_tokens(target)
        about = {
            "attack": self.name,
            **self.mark(),
            "target": target.revision,
            "seed": seed,
            "prompts": [prompt.id for prompt in prompts],
        }
        done, now = _read(self.state, about)
        for place, prompt in enumerate(prompts[len(done) :], len(done)):
            while not now.reached and now.restart < self.restarts:
                dice = random.Random(f"{seed} {prompt.id} {now.restart} {now.asked}")
                count = min(self.candidates, self.queries - now.asked)
                tried = [self._proposed(now, vocabulary, dice) for _ in range(count)]
                texts = [target.decode(tokens) for tokens in tried]
                scored = objective([self.prompt_with(prompt, text) for text in texts])
                before, now = now, self._advanced(now, tried, texts, scored)
                _write(self.state, about, done, now)
                if now.history != before.history:
                    _LOG.info(
                        "prompt %d of %d, %d queries: best score %.4g",
                        *(place + 1, len(prompts), now.queries, now.best.score),
                    )
            done, now = [*done, now], Search()
            _write(self.state, about, done, now)
        return done

    def _proposed(self, now: Search, vocabulary: list[int], dice: random.Random) -> tuple[int, ...]:
        """A random suffix, or a change of the best one."""
        if not now.tokens:
            return tuple(dice.choices(vocabulary, k=self.length))
        start = dice.randrange(len(now.tokens))
        stop = min(start + width_at(self.width, now.asked + 1), len(now.tokens))
        fresh = dice.choices(vocabulary, k=stop - start)
        return (*now.tokens[:start], *fresh, *now.tokens[stop:])

    def _advanced(
        self,
        now: Search,
        tried: Sequence[tuple[int, ...]],
        texts: Sequence[str],
        scored: Sequence[Scored],
    ) -> Search:
        """The search after a batch of candidates, of which the best is kept."""
        count = len(tried)
        top = max(range(count), key=lambda i: (scored[i].reached, scored[i].score))
        score, reached = scored[top]
        now = replace(now, queries=now.queries + count, asked=now.asked + count, reached=reached)
        if score > now.score or not now.tokens:
            now = replace(now, tokens=tried[top], score=score)
        if reached or not now.history or score > now.best.score:
            now = replace(now, history=(*now.history, Best(now.queries, score, texts[top])))
        if now.asked == self.queries and not reached:
            now = replace(now, restart=now.restart + 1, asked=0, tokens=(), score=-math.inf)
        return now

    def prompt_with(self, prompt: Prompt, suffix: str) -> Prompt:
        """The prompt with a suffix."""
        text = fill(self.template, goal=prompt.text, suffix=suffix)
        return attacked(prompt, self.name, text=text)


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


def width_at(width: int, query: int) -> int:
    """Tokens to replace at the 1-based query of a restart (the paper's piecewise schedule)."""
    return max(1, width >> sum(query > until for until in _UNTIL))


def _write(path: Path | None, about: Mapping[str, Any], done: list[Search], now: Search) -> None:
    if path is not None:
        value = {"about": about, "done": [asdict(one) for one in done], "now": asdict(now)}
        write_atomically(path, json.dumps(value).encode())


def _read(path: Path | None, about: Mapping[str, Any]) -> tuple[list[Search], Search]:
    """Finished searches and the current one; empty if there is no file."""
    if path is None or not path.exists():
        return [], Search()
    try:
        kept = json.loads(path.read_bytes())
        found = [_search(one) for one in [*kept["done"], kept["now"]]]
        before = kept["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold the state of a search ({type(error).__name__}). Name another file."
        ) from error
    now = json.loads(json.dumps(about))
    if different := [k for k in now if before.get(k) != now[k]]:
        raise InputError(
            f"{path} holds the state of another search: {', '.join(different)} differ. Name another "
            "file, or run the command that made it."
        )
    return found[:-1], found[-1]


def _search(kept: Mapping[str, Any]) -> Search:
    history = tuple(Best(*best) for best in kept["history"])
    return Search(**{**kept, "history": history, "tokens": tuple(kept["tokens"])})
