"""Read prompts from any source, and write them for the next command."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.files import write_atomically
from demur.prompts.columns import TEXTS, Rows, roles_of
from demur.prompts.prompt_rows import RowTally, SourceSummary
from demur.prompts.sets import PromptSet
from demur.prompts.sources import (
    built_in_prompts,
    check_options,
    number_repeats,
    open_source,
    peek,
    row_reader,
)
from demur.types import Label, Prompt


def read_prompts(
    source: str | Path,
    *,
    column: str | None = None,
    label: Label = "unknown",
    limit: int | None = None,
) -> list[Prompt]:
    """Read prompts from csv, tsv, json, jsonl, ndjson, txt (each also .gz) or parquet.

    Ids come from the source, or are a hash of the content; repeated ids get ``-2``, ``-3`` and so on.
    If a cell holds a conversation (a list of ``{role, content}``), its last user turn is the text and
    the turns before it are ``turns``; an answer at the end is left out.

    Args:
        source: a file, ``-`` (standard input), ``hub:org/name[:split]``, a published set
            ``set:NAME[/CATEGORY][@FILE]`` (from the hub without a file), or a set of the built-in
            world, ``organism:SPLIT/KIND[/ATTACK]``.
        column: the column of prompts; recognised by name when None.
        label: label of rows without one. With ``unknown``, rows of a published set get the set's.
        limit: read only this many, at least 1.

    Raises:
        InputError: missing, empty, undecodable or malformed file, no such column, or an empty prompt;
            the message says where.
        MissingExtraError: ``hub:`` without the extra ``hub``.
    """
    return prompts_with_summary(source, column=column, label=label, limit=limit)[0]


def prompts_with_summary(
    source: str | Path,
    *,
    column: str | None = None,
    label: Label = "unknown",
    limit: int | None = None,
) -> tuple[list[Prompt], SourceSummary]:
    """Like ``read_prompts``, with a summary of what was read and what was not."""
    source = str(source)
    check_options(label, limit)
    if source.startswith("organism:"):
        prompts = built_in_prompts(source, limit)
        return prompts, SourceSummary(source, len(prompts), Counter(p.label for p in prompts))
    table, known = open_source(source, column, {*TEXTS})
    return prompts_of(source, table, known, column=column, label=label, limit=limit)


def prompts_of(
    source: str,
    table: Rows,
    known: PromptSet | None,
    *,
    column: str | None = None,
    label: Label = "unknown",
    limit: int | None = None,
) -> tuple[list[Prompt], SourceSummary]:
    """Prompts from the rows of a source, with a summary."""
    head, rows = peek(table)
    roles = replace(roles_of(table.columns, head, source, column=column), answer=None)
    tally = RowTally()
    read = row_reader(source, roles, known, label, tally)
    found = []
    for where, row in islice(rows, limit):
        prompt, answer = read(where, row)
        if answer is not None:
            tally.notes["conversations end with an answer, which was left out"] += 1
        found.append(prompt)
    if not found:
        raise InputError(f"{source} holds no prompts, only a header. Add at least one row.")
    named = number_repeats(found, tally)
    name = known.name if known else ""
    notes = table.notes
    return named, tally.summary(source, named, roles, table.columns, notes=notes, known=name)


def write_prompts(path: str | Path, prompts: Sequence[Prompt]) -> Path:
    """Write prompts as .jsonl. ``read_prompts`` reads them back equal.

    Raises:
        InputError: the name does not end in .jsonl.
        StoreError: the file cannot be written.
    """
    if Path(path).suffix != ".jsonl":
        raise InputError(f"{path} does not end in .jsonl, the format of prompt files. Rename it.")
    lines = []
    for one in prompts:
        row: dict[str, Any] = {"id": one.id, "prompt": one.text, "goal": one.goal}
        row |= {"attack": one.attack, "label": one.label}
        row |= {"user_template": one.user, "response_template": one.response}
        if one.turns:
            row["turns"] = [asdict(turn) for turn in one.turns]
        lines.append(json.dumps(row, ensure_ascii=False))
    return write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
