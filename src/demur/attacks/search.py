"""Random search over a suffix of tokens, for any score of the prompt that carries it.

Andriushchenko, Croce, Flammarion, Jailbreaking Leading Safety-Aligned LLMs with Simple Adaptive
Attacks, arXiv:2404.02151, section 3; code tml-epfl/llm-adaptive-attacks ``main.py``, ``utils.py``:

    1. begin with a suffix of n tokens;
    2. replace a run of tokens at a random place by random ones; the run gets shorter with the number
       of queries (``width_at``);
    3. keep the change if the score rises;
    4. stop when the goal is reached, or begin again when a restart's queries are used up.

Differs from the paper: several changes of the same suffix are scored in one batch and the best is
taken (``candidates`` = 1 is the paper's); a suffix begins with random tokens, anew in each restart,
instead of strings found for one model by earlier searches; every random number comes from seed,
prompt, restart and number of queries, so that a search cut off at any moment goes on to the same end.
Differs from the released code: a run ends where the suffix does, so that its length stays, where theirs
grows past the end; replacements are printable tokens, not any; the schedule by the probability reached
(``--schedule_prob``) is left out, and so is giving up where the word is not among the top five.
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

#: Queries up to which the longest run is divided by 2**place.
_UNTIL = (10, 25, 50, 100, 500)


class Scored(NamedTuple):
    """A prompt's score, higher is better for the attacker, and whether it is good enough to stop."""

    score: float
    reached: bool


class Best(NamedTuple):
    """The best suffix after so many queries for a prompt, in all restarts together."""

    queries: int
    score: float
    suffix: str


#: Scores prompts, in order.
Objective = Callable[[list[Prompt]], list[Scored]]


@dataclass(frozen=True)
class Search:
    """Where the search for one prompt stands.

    Attributes:
        history: each improvement over everything before it.
        queries: candidates scored, in all restarts.
        reached: whether a candidate was good enough to stop.
        restart: 0-based restart; as many as there are when all are used up.
        asked: candidates scored in this restart.
        tokens: the restart's best suffix.
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
        """The best suffix that this many queries had found.

        Raises:
            InputError: not one candidate had been scored by then.
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
    """What is searched.

    Attributes:
        vocabulary: tokens to draw from.
        text_of: tokens to text.
        prompt_with: a prompt with this suffix.
        length: tokens of a suffix.
        width: longest run of tokens that one change replaces.
    """

    vocabulary: Sequence[int]
    text_of: Callable[[Sequence[int]], str]
    prompt_with: Callable[[Prompt, str], Prompt]
    length: int
    width: int

    def propose(self, now: Search, dice: random.Random) -> tuple[int, ...]:
        """A first suffix, or a change of the restart's best."""
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
    """Search a suffix for each prompt.

    Args:
        prompts: prompts, one after the other.
        suffixes: what is searched.
        objective: what is to rise.
        queries: candidates scored in a restart.
        restarts: searches begun for a prompt, unless one reaches its goal.
        candidates: scored in one batch.
        seed: of everything random.
        state: file to keep what is done in, and to go on from.
        mark: plain data that tells this search from others, kept in the file.

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
    """What is done and where the search stands; nothing where there is no file."""
    if path is None or not path.exists():
        return [], Search()
    try:
        kept = json.loads(path.read_bytes())
        found = [_search(one) for one in [*kept["done"], kept["now"]]]
        before = kept["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no state of a search ({type(error).__name__}). Name another file."
        ) from error
    now = json.loads(json.dumps(about))
    if different := [k for k in now if before.get(k) != now[k]]:
        raise InputError(
            f"{path} is the state of another search: its {', '.join(different)} differ. Name "
            "another file, or run the command it was made with."
        )
    return found[:-1], found[-1]


def _search(kept: Mapping[str, Any]) -> Search:
    history = tuple(Best(*best) for best in kept["history"])
    return Search(**{**kept, "history": history, "tokens": tuple(kept["tokens"])})
