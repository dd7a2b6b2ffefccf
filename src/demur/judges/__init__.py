"""Judges: (goal, response) -> hit, miss or unparsed, with the raw answer.

To add one, write it in a file of its own and add it to ``JUDGES``: a judge, a ``Question`` that needs
an assistant, or a ``GuardForm`` that needs a guard model.
"""

from __future__ import annotations

from collections.abc import Mapping

from demur.endpoint import Assistant
from demur.errors import InputError
from demur.judges.agreement import Comparison, compare
from demur.judges.dictionary import DICTIONARIES, Dictionary
from demur.judges.guard_model import GUARD_FORMS, GuardForm, GuardModel
from demur.judges.local_model import LocalAssistant
from demur.judges.oracle_judge import Oracle
from demur.judges.questions import QUESTIONS, Asking, Question
from demur.judges.refusal import RefusalRules
from demur.judges.verdict import Judge, Tally, Verdict, hit_rate, judge_all, tally
from demur.models.base import LanguageModel
from demur.plugins import known, unknown

__all__ = [
    "JUDGES",
    "REFUSAL_JUDGES",
    "Asking",
    "Comparison",
    "Dictionary",
    "GuardForm",
    "GuardModel",
    "Judge",
    "LocalAssistant",
    "Oracle",
    "Question",
    "RefusalRules",
    "Tally",
    "Verdict",
    "compare",
    "find_judge",
    "hit_rate",
    "judge_all",
    "known_judges",
    "needs_model",
    "refusal_judge",
    "tally",
]

#: Judges of refusal that need no model.
REFUSAL_JUDGES: Mapping[str, Judge] = {
    judge.name: judge for judge in (*DICTIONARIES, RefusalRules())
}

#: Every judge, and every question and guard form that becomes a judge with a model.
JUDGES: Mapping[str, Judge | Question | GuardForm] = {
    **REFUSAL_JUDGES,
    **{entry.name: entry for entry in (Oracle(), *QUESTIONS, *GUARD_FORMS)},
}


def refusal_judge(name: str) -> Judge:
    """Look a refusal judge up by name.

    Raises:
        InputError: no such judge.
    """
    judges = {
        **REFUSAL_JUDGES,
        **{
            name: judge
            for name, judge in known_judges().items()
            if name not in JUDGES
            and not isinstance(judge, Question | GuardForm)
            and judge.what == "refusal"
        },
    }
    if name not in judges:
        raise InputError(f"Unknown refusal judge {name!r}. Known: {', '.join(judges)}.")
    return judges[name]


def known_judges() -> Mapping[str, Judge | Question | GuardForm]:
    """Our own judges and those of plug-ins, by name."""
    return known("judges", JUDGES)


def needs_model(name: str) -> bool:
    """Whether a judge asks a model or is a guard model. Raises InputError: no such judge."""
    return isinstance(_entry(name), Question | GuardForm)


def find_judge(
    name: str, *, assistant: Assistant | None = None, model: LanguageModel | None = None
) -> Judge:
    """Look any judge up by name.

    Args:
        name: in ``JUDGES``.
        assistant: answers the questions of judges that ask a model.
        model: the guard model of judges that need one.

    Raises:
        InputError: no such judge, or it needs an assistant or a model that was not given.
    """
    entry = _entry(name)
    if isinstance(entry, Question):
        if assistant is None:
            raise InputError(
                f"The judge {name} asks a model. Say which: --judge-model NAME for a model to load, "
                "or --judge-model NAME@URL for one behind a server."
            )
        return Asking(entry, assistant)
    if isinstance(entry, GuardForm):
        if model is None:
            raise InputError(
                f"The judge {name} is a guard model that demur loads itself. Say where it is: "
                "--judge-model FOLDER, not NAME@URL."
            )
        return GuardModel(entry, model)
    return entry


def _entry(name: str) -> Judge | Question | GuardForm:
    judges = known_judges()
    if name not in judges:
        raise InputError(f"{unknown('judge', name, judges)} See: demur judges")
    return judges[name]
