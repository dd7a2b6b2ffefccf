"""Recognise the columns of a table by name, in upper or lower case, and by content."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.errors import InputError
from demur.prompts.conversations import CONVERSATIONS, is_conversation
from demur.prompts.labels import LabelColumn, flag_of, is_missing, label_columns

#: The column of sources that have none: text files and lists of plain strings.
PLAIN = "text"

#: Columns with the text to send, the surest first.
TEXTS = (
    *("adversarial", "prompt", "forbidden_prompt", "goal", "instruction", "question", "behavior"),
    *("behaviour", "query", "request", "vanilla", PLAIN, "input", "user_input", "test_case"),
    *CONVERSATIONS,
)
#: Columns with a model's answer, the surest first.
ANSWERS = (
    *("response", "completion", "generation", "answer", "model_output", "output"),
    *("model_response", "generated_text", "prediction", "reply"),
)
#: Columns with the task behind the text.
GOALS = ("goal", "vanilla")
IDS = ("id", "behaviorid", "behavior_id")
#: Text column -> its column of context, and how Alpaca and HarmBench join the two.
CONTEXTS = {
    "instruction": ("input", "{text}\n\n{context}"),
    "behavior": ("contextstring", "{context}\n\n---\n\n{text}"),
}
#: Columns that pandas adds for a table's index.
INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")


@dataclass(frozen=True)
class Rows:
    """The columns and rows of a source. A row is a pair: its place, for messages; and column -> value.

    Attributes:
        columns: every column that some row has, in order of appearance.
        rows: can be iterated once.
        notes: sentences about how the source was read.
    """

    columns: Sequence[str]
    rows: Iterable[tuple[str, Mapping[str, Any]]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roles:
    """The columns of a source by role; None if there is no such column.

    Attributes:
        text: what to send, or a conversation that ends with it.
        goal: the task behind it.
        id: stable names of the rows.
        attack: what made the text.
        labels: what is known about the goal.
        answer: what a model answered.
        turns: the turns before the text.
        user: templates of user turns.
        response: templates of responses.
        context: what is joined to the text, by ``join``.
        whole_ids: whether the ids are integers that pandas or a spreadsheet wrote as 1.0, 2.0.
    """

    text: str
    goal: str | None
    id: str | None
    attack: str | None
    labels: tuple[LabelColumn, ...]
    answer: str | None = None
    turns: str | None = None
    user: str | None = None
    response: str | None = None
    context: str | None = None
    join: str = "{text}"
    whole_ids: bool = False

    def taken(self) -> dict[str, str]:
        """Role -> column, for the roles that have one."""
        labels = ", ".join(column.name for column in self.labels)
        return {
            name: column
            for name, column in {
                "prompt": self.text,
                "answer": self.answer,
                "goal": self.goal,
                "id": self.id,
                "label": labels,
                "attack": self.attack,
                "context": self.context,
                "earlier turns": self.turns,
                "user template": self.user,
                "response template": self.response,
            }.items()
            if column
        }


def roles_of(
    columns: Sequence[str],
    head: Sequence[Mapping[str, Any]],
    source: str,
    *,
    column: str | None = None,
    answer: str | None = None,
    verb: str = "trace",
) -> Roles:
    """Find the column of prompts and the columns that go with it.

    Args:
        columns: the source's.
        head: its first rows, which show what the columns hold.
        source: for messages.
        column: the column to send; recognised when None.
        answer: the column of answers; recognised when None.
        verb: the command that reads the source, for messages.

    Raises:
        InputError: there is none, or several of that name.
    """
    command = f"demur {verb} {shlex.quote(source)}"
    text = _text_column(columns, head)
    if column:
        text = _named(columns, head, column, source, f"{command} --column")
    if text is None:
        raise _no_text_column(columns, head, source, f"{command} --column")
    if [*columns].count(text) > 1:
        raise InputError(f"{source} has several columns {text!r}. Rename all but one.")
    rest = [name for name in columns if name != text]
    said = find(rest, ANSWERS)
    if answer:
        said = _named(rest, head, answer, source, f"{command} --answers")
    context, join = CONTEXTS.get(text.casefold(), ("", "{text}"))
    turns, ids = find(rest, ["turns"]), find(rest, IDS)
    names = [str(row[ids]).strip() for row in head if ids and not is_missing(row.get(ids))]
    return Roles(
        text=text,
        goal=find(rest, GOALS),
        id=ids,
        attack=find(rest, ["attack"]),
        labels=label_columns(_by_name(rest), answers=said is not None),
        answer=said,
        turns=turns if any(is_conversation(row.get(turns)) for row in head if turns) else None,
        user=find(rest, ["user_template"]),
        response=find(rest, ["response_template"]),
        context=None if column else find(rest, [context]),
        join=join,
        whole_ids=bool(names) and all(re.fullmatch(r"\d+\.0", name) for name in names),
    )


def find(columns: Sequence[str], names: Iterable[str]) -> str | None:
    """The first of the names that is a column, in upper or lower case."""
    known = _by_name(columns)
    return next((known[name.casefold()] for name in names if name.casefold() in known), None)


def no_column(
    columns: Sequence[str], head: Sequence[Mapping[str, Any]], problem: str, *, command: str
) -> InputError:
    """An error for a missing column: the columns there are, and how to name one.

    Args:
        columns: the source's.
        head: its first rows; the column with the longest texts is suggested.
        problem: the beginning of the message.
        command: the next command up to the column's name.
    """
    named = [name for name in columns if not INDEX.fullmatch(name)]
    lengths = {name: sum(len(str(row.get(name) or "")) for row in head) for name in named}
    example = max(named, key=lambda name: lengths[name], default="NAME")
    return InputError(
        f"{problem}. It has: {', '.join(columns)[:500] or 'none'}. "
        f"Say which: {command} {shlex.quote(example)}"
    )


def _by_name(columns: Sequence[str]) -> dict[str, str]:
    return {column.strip().casefold(): column for column in reversed(columns)}


def _named(
    columns: Sequence[str], head: Sequence[Mapping[str, Any]], name: str, source: str, command: str
) -> str:
    found = name if name in columns else find(columns, [name])
    if found is None:
        raise no_column(columns, head, f"{source} has no column {name!r}", command=command)
    return found


def _text_column(columns: Sequence[str], head: Sequence[Mapping[str, Any]]) -> str | None:
    """The first known column that holds texts or conversations; a column of flags is skipped."""
    there = [column for name in TEXTS if (column := find(columns, [name]))]
    usable = [column for column in there if not _holds_flags(column, head)]
    filled = (c for c in usable if any(_is_asked(row.get(c)) for row in head))
    return next(filled, usable[0] if usable else None)


def _is_asked(value: Any) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or isinstance(value, list | dict)


def _holds_flags(column: str, head: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column holds only true and false, like ``adversarial`` in WildGuardMix."""
    values = [value for row in head if not is_missing(value := row.get(column))]
    if column.casefold() == "adversarial":
        return bool(values) and all(flag_of(value) is not None for value in values)
    return bool(values) and all(isinstance(value, bool) for value in values)


def _no_text_column(
    columns: Sequence[str], head: Sequence[Mapping[str, Any]], source: str, command: str
) -> InputError:
    flags = [c for name in TEXTS if (c := find(columns, [name])) and _holds_flags(c, head)]
    but = f" ({flags[0]} holds only true and false)" if flags else ""
    problem = f"{source} has no column that is known to hold prompts{but}"
    return no_column(columns, head, problem, command=command)
