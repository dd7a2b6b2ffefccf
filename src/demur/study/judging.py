"""The judges a study names, as functions of many goals and texts at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from demur.endpoint import Assistant, Endpoint
from demur.judges import LocalAssistant, find_judge, judge_all, needs_model
from demur.models import load
from demur.models.base import LanguageModel
from demur.organism import oracle
from demur.study.spec import Judges

#: Goals and what was said to each -> whether each is a hit: a refusal, or the harm asked for.
Hits = Callable[[Sequence[tuple[str, str]]], list[bool]]


def refusal_judges(judges: Judges) -> Mapping[str, Hits]:
    """Refusal judges by name, in the study's order; ``oracle`` is the built-in world's.

    Raises:
        InputError: no such judge, or it needs a model that the study does not name.
    """
    return {name: _refused if name == "oracle" else _hits(name, judges) for name in judges.refusal}


def harm_judge(judges: Judges) -> Hits:
    """The harm judge; errors as for ``refusal_judges``."""
    return _hits(judges.harm, judges)


def _refused(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    return [oracle.refused(text) for _, text in pairs]


def _hits(name: str, judges: Judges) -> Hits:
    """A judge's hits; what it cannot parse is none, and what is said twice is judged once."""
    assistant, model = _asked(judges) if needs_model(name) else (None, None)
    judge = find_judge(name, assistant=assistant, model=model)

    def hits(pairs: Sequence[tuple[str, str]]) -> list[bool]:
        unique = [*dict.fromkeys(pairs)]
        found = dict(zip(unique, judge_all(judge, unique), strict=True))
        return [found[pair].hit for pair in pairs]

    return hits


# Every cell asks the same model, which is loaded or connected to once.
@lru_cache(maxsize=1)
def _asked(judges: Judges) -> tuple[Assistant | None, LanguageModel | None]:
    """Who answers judges that ask, and the guard model of those that are one."""
    if judges.endpoint:
        server = Endpoint(
            judges.endpoint,
            judges.model,
            key_variable=judges.key_variable,
            cache=Path(judges.cache) if judges.cache else None,
            timeout=judges.timeout,
            concurrency=judges.concurrency,
            reasoning_tokens=judges.reasoning_tokens,
        )
        return server, None
    if not judges.model:
        return None, None
    model = load(judges.model)
    return LocalAssistant(model), model
