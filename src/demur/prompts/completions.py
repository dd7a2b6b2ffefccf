"""Read prompts with answers that demur did not generate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from demur.errors import InputError
from demur.prompts.columns import ANSWERS, TEXTS, no_column, roles_of
from demur.prompts.prompt_files import read_prompts
from demur.prompts.prompt_rows import RowTally, SourceSummary, answer_in
from demur.prompts.sources import check_options, number_repeats, open_source, peek, row_reader
from demur.types import Prompt


def read_completions(
    source: str | Path,
    *,
    column: str | None = None,
    answers: str | None = None,
    goals: str | Path | None = None,
    limit: int | None = None,
) -> list[tuple[Prompt, str]]:
    """Read prompts and their answers, for example to judge them.

    Reads HarmBench's completion files, JailbreakBench's artifacts, BeaverTails, WildGuardMix, and any
    table with a column of prompts and one of answers (``response``, ``completion``, ``output``, ...) or
    with conversations that end with an answer. Verdicts in the file are not read; the summary names
    their columns.

    Args:
        source: as for ``read_prompts``.
        column: the column of prompts; recognised by name when None.
        answers: the column of answers; recognised by name when None.
        goals: a source that gives goals and labels by id, such as HarmBench's file of behaviors.
        limit: read only this many, at least 1.

    Raises:
        InputError: as for ``read_prompts``, or there are no answers, or ``goals`` lacks an id.
    """
    return completions_with_summary(
        source, column=column, answers=answers, goals=goals, limit=limit
    )[0]


def completions_with_summary(
    source: str | Path,
    *,
    column: str | None = None,
    answers: str | None = None,
    goals: str | Path | None = None,
    limit: int | None = None,
) -> tuple[list[tuple[Prompt, str]], SourceSummary]:
    """Like ``read_completions``, with a summary of what was read and what was not."""
    source = str(source)
    check_options("unknown", limit)
    table, known = open_source(source, column, {*TEXTS, *ANSWERS})
    head, rows = peek(table)
    roles = roles_of(table.columns, head, source, column=column, answer=answers, verb="judge")
    tally = RowTally()
    read = row_reader(source, roles, known, "unknown", tally)
    found: list[tuple[Prompt, str]] = []
    for where, row in islice(rows, limit):
        answer = answer_in(row, roles, f"{source}, {where}")
        if roles.answer and answer is None:
            tally.notes["rows have no answer and were left out"] += 1
            continue
        prompt, said = read(where, row)
        if answer is not None and said is not None:
            note = f"conversations end with another answer than {roles.answer}, which was not read"
            tally.notes[note] += said != answer
        answer = said if answer is None else answer
        if answer is None:
            raise no_column(
                table.columns,
                head,
                f"{source}, {where} has no answer, in a column of its own or ending a conversation",
                command=f"demur judge {shlex.quote(source)} --answers",
            )
        if not answer.strip():
            tally.notes["answers are empty"] += 1
        found.append((prompt, answer))
    if not found:
        raise InputError(f"{source} holds no answers. Give a file with at least one.")
    notes = table.notes
    if goals is not None:
        found = _with_goals(found, goals)
    elif roles.text == "test_case":
        notes = (*notes, "HarmBench's files do not hold the goals: --goals FILE reads them by id")
    prompts = number_repeats([prompt for prompt, _ in found], tally)
    taken = roles if roles.answer else replace(roles, answer=roles.text)
    name = known.name if known else ""
    summary = tally.summary(source, prompts, taken, table.columns, notes=notes, known=name)
    return [*zip(prompts, (answer for _, answer in found), strict=True)], summary


def _with_goals(found: Sequence[tuple[Prompt, str]], goals: str | Path) -> list[tuple[Prompt, str]]:
    """Take goals and labels from another source, by id."""
    behind = {prompt.id: prompt for prompt in read_prompts(goals)}
    missing = [prompt.id for prompt, _ in found if prompt.id not in behind]
    if missing:
        raise InputError(
            f"{goals} has no goal for {len(missing)} of {len(found)} answers, first for the id "
            f"{missing[0]!r}. Give a file with all ids."
        )
    return [
        (replace(p, goal=behind[p.id].goal, label=behind[p.id].label), answer)
        for p, answer in found
    ]
