"""Open a source of prompts: a file, a published set or the built-in world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast, get_args

from demur.errors import InputError
from demur.prompts.columns import TEXTS, Roles, Rows, find
from demur.prompts.prompt_rows import RowTally, prompt_of
from demur.prompts.sets import PromptSet, find_set, recognised
from demur.prompts.table_files import read_hub, read_table
from demur.types import Label, Prompt

#: Rows read ahead to see what the columns hold.
_HEAD = 1000


def check_options(label: Label, limit: int | None) -> None:
    if label not in get_args(Label):
        raise InputError(f"Unknown label {label!r}. Known: {', '.join(get_args(Label))}.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1.")


def open_source(
    source: str, column: str | None, columns: set[str]
) -> tuple[Rows, PromptSet | None]:
    """The rows of a source, and the published set they belong to, if any."""
    if source.startswith("set:"):
        return _published(source)
    table = read_table(source, known={column.casefold()} if column else columns)
    return table, None if column else recognised(table.columns, Path(source).name)


def peek(
    table: Rows,
) -> tuple[list[Mapping[str, Any]], Iterator[tuple[str, Mapping[str, Any]]]]:
    """The first rows, and an iterator over all of them."""
    rows = iter(table.rows)
    first = list(islice(rows, _HEAD))
    return [row for _, row in first], chain(first, rows)


def row_reader(
    source: str, roles: Roles, known: PromptSet | None, label: Label, tally: RowTally
) -> Callable[[str, Mapping[str, Any]], tuple[Prompt, str | None]]:
    """A function that turns a row, its place and column -> value, into a prompt and an answer."""
    made_by = known.attack if known else "none"
    name = _name(source, known) if known else ""

    def label_of(goal: str) -> Label:
        return known.label_of(name, goal) if known and label == "unknown" else label

    return lambda where, row: prompt_of(row, roles, label_of, made_by, f"{source}, {where}", tally)


def number_repeats(prompts: Sequence[Prompt], tally: RowTally) -> list[Prompt]:
    """Add ``-2``, ``-3`` and so on to repeated ids, and count them."""
    taken: set[str] = set()
    seen: Counter[str] = Counter()
    named = []
    for prompt in prompts:
        name = prompt.id
        while name in taken:
            seen[prompt.id] += 1
            name = f"{prompt.id}-{seen[prompt.id] + 1}"
        taken.add(name)
        tally.notes["repeated ids were numbered, such as a-2"] += name != prompt.id
        named.append(prompt if name == prompt.id else replace(prompt, id=name))
    return named


def built_in_prompts(source: str, limit: int | None) -> list[Prompt]:
    """Prompts of the built-in world, such as ``organism:test/harmful/role_play``."""
    from demur.organism import world

    parts = source.removeprefix("organism:").split("/")
    if len(parts) not in (2, 3):
        raise InputError(
            f"{source!r} names no set of the built-in world. Write organism:SPLIT/KIND or "
            "organism:SPLIT/KIND/ATTACK, such as organism:test/harmful/role_play."
        )
    split, kind, attack = [*parts, "none"][:3]
    drawn = world.prompts(cast(world.Split, split), cast(world.TaskKind, kind), attack=attack)
    return drawn[:limit]


def _name(source: str, known: PromptSet) -> str:
    """Name of the file of a set, or its configuration and split on the hub."""
    if source.startswith("set:") and "@" not in source:
        return f"{known.config} {known.split}"
    return Path(source.partition("@")[2] or source).name


def _published(source: str) -> tuple[Rows, PromptSet]:
    """The rows of a published set, or of one of its categories."""
    where, _, file = source.removeprefix("set:").partition("@")
    name, _, category = where.partition("/")
    known = find_set(name)
    if file:
        table = read_table(file, known={*TEXTS})
    elif known.hub:
        table = read_hub(
            f"hub:{known.hub}:{known.split}", config=known.config, options=known.options
        )
    else:
        raise InputError(
            f"{name} is published as files only ({known.source}). Download one and name it: "
            f"set:{name}@FILE."
        )
    return (_of_category(table, known, category, source) if category else table), known


def _of_category(table: Rows, known: PromptSet, category: str, source: str) -> Rows:
    column = find(table.columns, known.category)
    if column is None:
        raise InputError(f"{source}: {known.name} has no column of categories in this file.")
    rows = list(table.rows)
    kept = [(w, row) for w, row in rows if str(row.get(column)).casefold() == category.casefold()]
    if not kept:
        there = sorted({str(row.get(column)) for _, row in rows})
        raise InputError(f"{source}: no category {category!r}. It has: {', '.join(there)}.")
    return Rows(table.columns, kept, table.notes)
