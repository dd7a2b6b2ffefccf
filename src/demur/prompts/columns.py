"""Which column of a table holds what, recognised by name whatever its case, and a row's prompt."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.errors import InputError
from demur.prompts.tables import PLAIN
from demur.types import Label, Prompt, Template

#: Columns that hold what to send, the surest first.
TEXTS = (
    *("adversarial", "prompt", "forbidden_prompt", "goal", "instruction", "question", "behavior"),
    *("behaviour", "query", "request", "vanilla", PLAIN, "input"),
)
#: Columns that hold the task behind it.
GOALS = ("goal", "vanilla")
IDS = ("id", "behaviorid", "behavior_id")
LABELS = ("label", "data_type")
#: Text column -> its column of context, and how Alpaca and HarmBench put the two together.
CONTEXTS = {
    "instruction": ("input", "{text}\n\n{context}"),
    "behavior": ("contextstring", "{context}\n\n---\n\n{text}"),
}
WORDS: Mapping[str, Label] = {
    **dict.fromkeys(("harmless", "safe", "benign"), "harmless"),
    **dict.fromkeys(("harmful", "unsafe", "malicious"), "harmful"),
    "borderline": "borderline",
}


@dataclass(frozen=True)
class Roles:
    """Which column of a source is what; None where it has none."""

    text: str
    goal: str | None
    id: str | None
    attack: str | None
    labels: tuple[str, ...]
    user: str | None = None
    response: str | None = None
    context: str | None = None
    join: str = "{text}"


def roles_of(columns: Sequence[str], column: str | None, source: str) -> Roles:
    """Find the column to send and what belongs to it.

    Raises:
        InputError: there is none, or several of that name.
    """
    text = column if column in columns else find(columns, [column] if column else TEXTS)
    if text is None:
        problem = (
            f"has no column {column!r}" if column else "has no column that is known to hold prompts"
        )
        example = shlex.quote(columns[0]) if columns else "NAME"
        raise InputError(
            f"{source} {problem}. It has: {', '.join(columns)[:500] or 'none'}. "
            f"Say which: demur trace {shlex.quote(source)} --column {example}"
        )
    if [*columns].count(text) > 1:
        raise InputError(f"{source} has several columns {text!r}. Rename all but one.")
    rest = [name for name in columns if name != text]
    context, join = CONTEXTS.get(text.casefold(), ("", "{text}"))
    found = None if column else find(rest, [context])
    return Roles(
        text=text,
        goal=find(rest, GOALS),
        id=find(rest, IDS),
        attack=find(rest, ["attack"]),
        labels=tuple(name for wanted in LABELS if (name := find(rest, [wanted]))),
        user=find(rest, ["user_template"]),
        response=find(rest, ["response_template"]),
        context=found,
        join=join,
    )


def find(columns: Sequence[str], names: Iterable[str]) -> str | None:
    """The first of the names that is a column, whatever its case."""
    known = {column.strip().casefold(): column for column in reversed(columns)}
    return next((known[name.casefold()] for name in names if name.casefold() in known), None)


def prompt_of(
    row: Mapping[str, Any],
    roles: Roles,
    label_of: Callable[[str], Label],
    made_by: str,
    where: str,
) -> Prompt:
    text, goal = _text(row, roles.text, where), _text(row, roles.goal, where)
    attack = _text(row, roles.attack, where).strip() or made_by
    if roles.text.casefold() == "adversarial":  # WildJailbreak leaves it empty in plain rows
        attack = "adversarial"
    if (attack == "adversarial" or made_by == "artifact") and not text.strip():
        # Artifacts hold null where the attack found nothing: what is left is the plain goal.
        attack, text = "none", goal
    user = _template(row, roles.user, where)
    if not text.strip() and user is None:
        raise InputError(f"{where}: the prompt is empty. Remove the row or fill its {roles.text}.")
    context = _text(row, roles.context, where)
    words = [str(row.get(name, "")).strip().casefold().rsplit("_", 1)[-1] for name in roles.labels]
    goal = goal if goal.strip() else text
    return Prompt(
        text=roles.join.format(text=text, context=context) if context.strip() else text,
        id=_text(row, roles.id, where, numbers=True).strip(),
        goal=goal,
        attack=attack,
        label=next((WORDS[word] for word in words if word in WORDS), label_of(goal)),
        user=user,
        response=_template(row, roles.response, where),
    )


def _template(row: Mapping[str, Any], column: str | None, where: str) -> Template | None:
    """A cell's template: a list of texts and lengths, or the JSON of one; None where it is empty."""
    value = row.get(column) if column else None
    if value is None or value == "":
        return None
    try:
        parts = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        parts = None
    if not isinstance(parts, list) or not all(
        isinstance(part, str) or (type(part) is int and part > 0) for part in parts
    ):
        raise InputError(
            f"{where}: column {column} holds {str(value)[:80]!r}, not a list of texts and numbers "
            "of masked positions. Correct or empty it."
        )
    return tuple(parts)


def _text(row: Mapping[str, Any], column: str | None, where: str, *, numbers: bool = False) -> str:
    """A cell's text, empty where there is none."""
    value = row.get(column) if column else None
    if value is None:
        return ""
    if numbers and isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        kind = type(value).__name__
        raise InputError(f"{where}: column {column} holds {str(value)[:80]!r} ({kind}), not text.")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(
            f"{where}: column {column} holds a NUL or half a surrogate pair, which no tokenizer "
            "reads. Remove it."
        )
    return value
