"""Turn rows into prompts, and count what the user should know about them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demur.errors import InputError
from demur.prompts.columns import INDEX, Roles
from demur.prompts.conversations import CONVERSATIONS, split_turns, turns_of
from demur.prompts.labels import is_missing, label_word, looks_like_label
from demur.types import Label, Prompt, Template, Turn

#: Most values quoted in a note, and most unread columns named.
_QUOTED, _NAMED = 3, 8


@dataclass(frozen=True)
class SourceSummary:
    """What was read from a source and what was not. ``str()`` gives it as text.

    Attributes:
        source: the file, set or split.
        count: prompts read.
        labels: label -> number of prompts.
        columns: role (``prompt``, ``label``, ``id``, ``goal``, ``answer``, ...) -> its column.
        unread: the other columns.
        unread_labels: those of them that look like labels.
        notes: sentences about what was left out, changed or filled in, with counts.
        known: name of the published set whose columns these are, or empty.
    """

    source: str
    count: int
    labels: Mapping[Label, int]
    columns: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    unread_labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    known: str = ""

    def __str__(self) -> str:
        what = "answers" if "answer" in self.columns else "prompts"
        counts = ", ".join(f"{count} {label}" for label, count in self.labels.items())
        known = f" ({self.known})" if self.known else ""
        parts = [f"{self.count} {what} from {self.source}{known}: {counts}"]
        if self.columns:
            parts.append(
                "Columns taken: " + ", ".join(f"{k} from {v}" for k, v in self.columns.items())
            )
        if {*self.labels} == {"unknown"} and what == "prompts":
            parts.append("No labels: give --label now, or demur anchors --labels FILE later")
        if self.unread:
            left = len(self.unread) - _NAMED
            more = f" and {left} more" if left > 0 else ""
            parts.append(f"Not read: {', '.join(self.unread[:_NAMED])}{more}")
        if self.unread_labels:
            parts.append(
                f"These look like labels and were not read: {', '.join(self.unread_labels)}. Where one "
                "labels the prompts, rename it to label (harmful, harmless) or prompt_harmful (1, 0)"
            )
        return ". ".join([*parts, *self.notes]) + "."


@dataclass
class RowTally:
    """Counts kept while rows are read: notes, odd label values, and label words by column."""

    notes: Counter[str] = field(default_factory=Counter)
    strange: Counter[tuple[str, str]] = field(default_factory=Counter)
    worded: Counter[str] = field(default_factory=Counter)

    def summary(
        self,
        source: str,
        prompts: Sequence[Prompt],
        roles: Roles,
        columns: Sequence[str],
        *,
        notes: Sequence[str],
        known: str,
    ) -> SourceSummary:
        """Summarise a source after its last row."""
        taken = roles.taken()
        used = {*taken.values(), *(column.name for column in roles.labels)}
        unread = [c for c in columns if c not in used and not INDEX.fullmatch(c)]
        half = len(prompts) / 2
        labels = [c for c in unread if looks_like_label(c) or self.worded[c] > half]
        said = [f"{count} {note}" for note, count in self.notes.items() if count]
        for name in dict.fromkeys(column for column, _ in self.strange):
            values = [(v, n) for (column, v), n in self.strange.most_common() if column == name]
            quoted = ", ".join(f"{value!r}" for value, _ in values[:_QUOTED])
            more = f" and {len(values) - _QUOTED} other values" if len(values) > _QUOTED else ""
            said.append(
                f"{sum(n for _, n in values)} rows of column {name} name no label: {quoted}{more}"
            )
        return SourceSummary(
            source=source,
            count=len(prompts),
            labels=Counter(prompt.label for prompt in prompts),
            columns=taken,
            unread=tuple(unread),
            unread_labels=tuple(labels),
            notes=(*notes, *said),
            known=known,
        )


def prompt_of(
    row: Mapping[str, Any],
    roles: Roles,
    label_of: Callable[[str], Label],
    made_by: str,
    where: str,
    tally: RowTally,
) -> tuple[Prompt, str | None]:
    """The prompt of a row, and the answer at the end of its conversation or None.

    Args:
        row: column -> value.
        roles: the columns by what they hold.
        label_of: goal -> label, for rows without a label.
        made_by: attack, for rows that do not name one.
        where: the row, for messages.
        tally: counts what was left out, changed or filled in.

    Raises:
        InputError: the prompt is empty or not text.
    """
    turns, text, answer = _asked(row, roles, where)
    goal = _text(row, roles.goal, where)
    attack = _text(row, roles.attack, where).strip() or made_by
    if roles.text.casefold() == "adversarial":  # WildJailbreak leaves it empty in plain rows
        attack = "adversarial"
    if (attack == "adversarial" or made_by == "artifact") and not text.strip():
        # Artifacts have null if the attack failed. The plain goal is asked instead.
        if made_by == "artifact":
            tally.notes["rows have no jailbreak: the plain goal is asked"] += 1
        attack, text = "none", goal
    user = _template(row, roles.user, where)
    if not text.strip() and user is None:
        raise InputError(f"{where}: the prompt is empty. Remove the row or fill its {roles.text}.")
    context = _text(row, roles.context, where)
    goal = goal if goal.strip() else text
    prompt = Prompt(
        text=roles.join.format(text=text, context=context) if context.strip() else text,
        id=_id(row, roles, where, tally),
        goal=goal,
        attack=attack,
        label=_label(row, roles, tally) or label_of(goal),
        user=user,
        response=_template(row, roles.response, where),
        turns=turns,
    )
    if turns:
        tally.notes["prompts have earlier turns"] += 1
    for name, value in row.items():
        if isinstance(value, str) and len(value) < 30 and label_word(value):
            tally.worded[name] += 1
    return prompt, answer


def answer_in(row: Mapping[str, Any], roles: Roles, where: str) -> str | None:
    """The answer in the column of answers; None if it is null or there is no such column.

    Raises:
        InputError: neither a text nor one assistant turn.
    """
    value = row.get(roles.answer) if roles.answer else None
    if isinstance(value, list | dict):
        turns = turns_of(value, where, str(roles.answer))
        if [turn.role for turn in turns] != ["assistant"]:
            raise InputError(
                f"{where}: column {roles.answer} holds {len(turns)} turns, not one of the assistant. "
                "Write the answer as text."
            )
        value = turns[0].content
    if value is None or (isinstance(value, float) and is_missing(value)):
        return None
    return _is_text(value, f"{where}: column {roles.answer}")


def _asked(
    row: Mapping[str, Any], roles: Roles, where: str
) -> tuple[tuple[Turn, ...], str, str | None]:
    """The earlier turns, the text to ask, and the answer at the end of a conversation or None."""
    cell = row.get(roles.text)
    written = isinstance(cell, str) and cell.lstrip().startswith("[")
    if isinstance(cell, list | dict) or (written and roles.text.casefold() in CONVERSATIONS):
        turns = turns_of(cell, where, roles.text)
        for n, turn in enumerate(turns, 1):
            _readable(turn.content, f"{where}: turn {n} of column {roles.text}")
        return split_turns(turns, where)
    earlier = row.get(roles.turns) if roles.turns else None
    before = () if is_missing(earlier) else tuple(turns_of(earlier, where, str(roles.turns)))
    return before, _text(row, roles.text, where), None


def _label(row: Mapping[str, Any], roles: Roles, tally: RowTally) -> Label | None:
    """The label of a row, from the first label column that has one."""
    found: list[tuple[str, Label]] = []
    for column in roles.labels:
        value = row.get(column.name)
        if is_missing(value):
            continue
        if label := column.label_of(value):
            found.append((column.name, label))
        else:
            tally.strange[column.name, str(value)[:40]] += 1
    if len({label for _, label in found}) > 1:
        others = ", ".join(dict.fromkeys(name for name, _ in found[1:]))
        tally.notes[f"rows: {found[0][0]} and {others} differ, {found[0][0]} was taken"] += 1
    return found[0][1] if found else None


def _id(row: Mapping[str, Any], roles: Roles, where: str, tally: RowTally) -> str:
    """The id of a row, with 1.0 read as 1."""
    value = row.get(roles.id) if roles.id else None
    if is_missing(value):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        whole = isinstance(value, float) and value.is_integer()
        name = f"{value:.1f}" if whole else str(value)
    else:
        place = f"{where}: column {roles.id}"
        name = _readable(_is_text(value, place), place).strip()
        whole = roles.whole_ids and bool(re.fullmatch(r"\d+\.0", name))
    if whole:
        tally.notes["ids such as 1.0 were read as 1"] += 1
    return name.removesuffix(".0") if whole else name


def _template(row: Mapping[str, Any], column: str | None, where: str) -> Template | None:
    """The template in a cell, a list of texts and lengths or its JSON; None if empty."""
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


def _text(row: Mapping[str, Any], column: str | None, where: str) -> str:
    """The text in a cell, or an empty text."""
    value = row.get(column) if column is not None else None
    if value is None:
        return ""
    place = f"{where}: column {column}"
    return _readable(_is_text(value, place), place)


def _is_text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} holds {str(value)[:80]!r} ({type(value).__name__}), not text.")
    return value


def _readable(text: str, where: str) -> str:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(
            f"{where} holds a NUL or half a surrogate pair, which no tokenizer reads. Remove it."
        )
    return text
