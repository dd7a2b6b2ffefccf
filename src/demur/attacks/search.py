"""Random search over a suffix of tokens, for any score of the prompt with that suffix.

Andriushchenko, Croce, Flammarion, Jailbreaking Leading Safety-Aligned LLMs with Simple Adaptive
Attacks, arXiv:2404.02151, section 3; code tml-epfl/llm-adaptive-attacks ``main.py``, ``utils.py``:

    1. start with a suffix of n tokens;
    2. replace a run of tokens at a random place by random tokens; the run gets shorter with the number
       of queries (``width_at``);
    3. keep the change if the score rises;
    4. stop when the goal is reached, or restart when a restart's queries are used up.

Differs from the paper: several changes of the same suffix are scored in one batch and the best is kept
(the paper has ``candidates`` = 1); a suffix starts from random tokens in each restart instead of
strings found in earlier searches; all random numbers depend on seed, prompt, restart and number of
queries, so an interrupted search resumes to the same end. Differs from the released code: a run ends at
the end of the suffix, so the suffix keeps its length; only printable tokens are used; the schedule by
probability (``--schedule_prob``) and giving up when the word is not among the top five are left out.
"""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from demur.errors import InputError
from demur.files import write_atomically
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


@dataclass(frozen=True)
class Suffixes:
    """The search space.

    Attributes:
        vocabulary: tokens to draw from.
        text_of: decodes tokens.
        prompt_with: adds a suffix to a prompt.
        length: tokens of a suffix.
        width: longest run of tokens that one change replaces.
    """

    vocabulary: Sequence[int]
    text_of: Callable[[Sequence[int]], str]
    prompt_with: Callable[[Prompt, str], Prompt]
    length: int
    width: int

    def propose(self, now: Search, dice: random.Random) -> tuple[int, ...]:
        """A random suffix, or a change of the best one."""
        if not now.tokens:
            return tuple(dice.choices(self.vocabulary, k=self.length))
        width = width_at(self.width, now.asked + 1)
        start = dice.randrange(len(now.tokens))
        stop = min(start + width, len(now.tokens))
        fresh = dice.choices(self.vocabulary, k=stop - start)
        return (*now.tokens[:start], *fresh, *now.tokens[stop:])


def width_at(width: int, query: int) -> int:
    """Tokens to replace at the 1-based query of a restart (the paper's piecewise schedule)."""
    return max(1, width >> sum(query > until for until in _UNTIL))


def search_all(
    prompts: Sequence[Prompt],
    suffixes: Suffixes,
    objective: Objective,
    *,
    queries: int,
    restarts: int,
    candidates: int,
    seed: int,
    state: Path | None,
    mark: Mapping[str, Any],
) -> list[Search]:
    """Search for a suffix for each prompt, one prompt after the other.

    Args:
        prompts: prompts to attack.
        suffixes: the search space.
        objective: what to maximise.
        queries: candidates per restart.
        restarts: maximum restarts per prompt.
        candidates: candidates per batch.
        seed: random seed.
        state: file in which progress is saved, and from which a search resumes.
        mark: plain data that identifies this search, kept in the file.

    Raises:
        InputError: the file is of another search, or damaged.
    """
    about = {**mark, "seed": seed, "prompts": [prompt.id for prompt in prompts]}
    done, now = _read(state, about)
    for place, prompt in enumerate(prompts[len(done) :], len(done)):
        while not now.reached and now.restart < restarts:
            before = now.history
            now = _advance(now, prompt, suffixes, objective, queries, candidates, seed)
            _write(state, about, done, now)
            if now.history != before:
                _LOG.info(
                    "prompt %d of %d, %d queries: best score %.4g",
                    *(place + 1, len(prompts), now.queries, now.best.score),
                )
        done, now = [*done, now], Search()
        _write(state, about, done, now)
    return done


def _advance(
    now: Search,
    prompt: Prompt,
    suffixes: Suffixes,
    objective: Objective,
    queries: int,
    candidates: int,
    seed: int,
) -> Search:
    """Score one batch of candidates and keep the best."""
    dice = random.Random(f"{seed} {prompt.id} {now.restart} {now.asked}")
    count = min(candidates, queries - now.asked)
    tried = [suffixes.propose(now, dice) for _ in range(count)]
    texts = [suffixes.text_of(tokens) for tokens in tried]
    scored = objective([suffixes.prompt_with(prompt, text) for text in texts])
    top = max(range(count), key=lambda i: (scored[i].reached, scored[i].score))
    score, reached = scored[top]
    now = replace(now, queries=now.queries + count, asked=now.asked + count, reached=reached)
    if score > now.score or not now.tokens:
        now = replace(now, tokens=tried[top], score=score)
    if reached or not now.history or score > now.best.score:
        now = replace(now, history=(*now.history, Best(now.queries, score, texts[top])))
    if now.asked == queries and not reached:
        now = replace(now, restart=now.restart + 1, asked=0, tokens=(), score=-math.inf)
    return now


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
