"""Prompts from files, standard input or the hub, their columns recognised by name.

Published sets read as they are (``demur.prompts.sets``), and the Parquet files of a run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

from demur.errors import InputError
from demur.files import write_atomically
from demur.prompts.columns import TEXTS, find, prompt_of, roles_of
from demur.prompts.sets import SETS, PromptSet, find_set, recognised
from demur.prompts.tables import Table, read_hub, read_table
from demur.types import Label, Prompt

__all__ = ["SETS", "PromptSet", "find_set", "read_prompts", "write_prompts"]


def read_prompts(
    source: str | Path,
    *,
    column: str | None = None,
    label: Label = "unknown",
    limit: int | None = None,
) -> list[Prompt]:
    """Read prompts from csv, tsv, jsonl, json, txt or parquet.

    Ids are the source's, or the content's hash where it has none; a repeated id gets ``-2``, ``-3``
    and so on.

    Args:
        source: a file, ``-`` (standard input), ``hub:org/name[:split]``, a published set
            ``set:NAME[/CATEGORY][@FILE]`` (from the hub without a file), or a set of the built-in
            world, ``organism:SPLIT/KIND[/ATTACK]``.
        column: the column to send as it is; recognised by name when None.
        label: of rows that do not say ``safe``, ``unsafe`` or the like; where it is ``unknown`` and
            the columns are a published set's, what is known of that set.
        limit: read only this many, at least 1.

    Raises:
        InputError: not there, empty, undecodable, malformed, no such column, or an empty prompt;
            the message says where.
        MissingExtraError: ``hub:`` without the extra ``hub``.
    """
    if label not in get_args(Label):
        raise InputError(f"Unknown label {label!r}. Known: {', '.join(get_args(Label))}.")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1.")
    source = str(source)
    if source.startswith("organism:"):
        return _built_in(source, limit)
    known: PromptSet | None
    if source.startswith("set:"):
        table, known = _published(source)
    else:
        table = read_table(source, known={column.casefold()} if column else {*TEXTS})
        known = None if column else recognised(table.columns, Path(source).name)
    roles = roles_of(table.columns, column, source)
    made_by = known.attack if known else "none"
    name = _name(source, known) if known else ""

    def label_of(goal: str) -> Label:
        return known.label_of(name, goal) if known and label == "unknown" else label

    rows = islice(table.rows, limit)
    prompts = [
        prompt_of(row, roles, label_of, made_by, f"{source}, {where}") for where, row in rows
    ]
    if not prompts:
        raise InputError(f"{source} holds no prompts, only a header. Add at least one row.")
    return _distinct(prompts)


def _name(source: str, known: PromptSet) -> str:
    """What tells which file of a set was read: its name, or configuration and split on the hub."""
    if source.startswith("set:") and "@" not in source:
        return f"{known.config} {known.split}"
    return Path(source.partition("@")[2] or source).name


def write_prompts(path: str | Path, prompts: Sequence[Prompt]) -> Path:
    """Write prompts as .jsonl that ``read_prompts`` reads back equal, templates and all.

    Raises:
        InputError: the name does not end in .jsonl.
        StoreError: the file cannot be written.
    """
    if Path(path).suffix != ".jsonl":
        raise InputError(f"{path} does not end in .jsonl, which prompts are written as. Rename it.")
    lines = []
    for one in prompts:
        row: dict[str, Any] = {"id": one.id, "prompt": one.text, "goal": one.goal}
        row |= {"attack": one.attack, "label": one.label}
        # In every row, because the first row's columns are the file's.
        row |= {"user_template": one.user, "response_template": one.response}
        lines.append(json.dumps(row, ensure_ascii=False))
    return write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def _published(source: str) -> tuple[Table, PromptSet]:
    """The rows of a published set, of one category where one is named."""
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


def _of_category(table: Table, known: PromptSet, category: str, source: str) -> Table:
    column = find(table.columns, known.category)
    if column is None:
        raise InputError(f"{source}: {known.name} has no column of categories here.")
    rows = list(table.rows)
    kept = [(w, row) for w, row in rows if str(row.get(column)).casefold() == category.casefold()]
    if not kept:
        there = sorted({str(row.get(column)) for _, row in rows})
        raise InputError(f"{source}: no category {category!r}. There are: {', '.join(there)}.")
    return Table(table.columns, kept)


def _built_in(source: str, limit: int | None) -> list[Prompt]:
    """A set of the built-in world, such as ``organism:test/harmful/role_play``."""
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


def _distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Number the repeated ids."""
    taken: set[str] = set()
    seen: Counter[str] = Counter()
    named = []
    for prompt in prompts:
        name = prompt.id
        while name in taken:
            seen[prompt.id] += 1
            name = f"{prompt.id}-{seen[prompt.id] + 1}"
        taken.add(name)
        named.append(prompt if name == prompt.id else replace(prompt, id=name))
    return named
