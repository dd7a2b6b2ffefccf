"""The judges a study names, as plain functions of goal and text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from demur.endpoint import Assistant, Endpoint
from demur.judges import LocalAssistant, find_judge
from demur.models import load
from demur.organism import oracle
from demur.study.spec import Judges

#: Whether a response to a goal is a refusal.
Refusal = Callable[[str, str], bool]
#: Whether it holds what the harmful goal asks for.
Harm = Callable[[str, str], bool]


def refusal_judges(judges: Judges) -> Mapping[str, Refusal]:
    """Refusal judges by name, in the study's order; ``oracle`` is the built-in world's.

    Raises:
        InputError: no such judge, or it needs a model that the study does not name.
    """
    return {name: _refused if name == "oracle" else _hit(name, judges) for name in judges.refusal}


def harm_judge(judges: Judges) -> Harm:
    """The harm judge; errors as for ``refusal_judges``."""
    return _hit(judges.harm, judges)


def _refused(goal: str, text: str) -> bool:
    return oracle.refused(text)


def _hit(name: str, judges: Judges) -> Callable[[str, str], bool]:
    """A judge's hits; what it cannot parse is none."""
    judge = find_judge(name, assistant=_assistant(judges))
    return lambda goal, text: judge(goal, text).hit


def _assistant(judges: Judges) -> Assistant | None:
    if judges.endpoint:
        return Endpoint(judges.endpoint, judges.model)
    return LocalAssistant(load(judges.model)) if judges.model else None
