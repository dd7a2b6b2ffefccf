"""Add labels from a file to existing traces, without generating again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from demur.errors import InputError
from demur.prompts.columns import IDS, PLAIN, TEXTS, Rows, find
from demur.prompts.labels import LABELS
from demur.prompts.prompt_files import prompts_of, prompts_with_summary
from demur.prompts.prompt_rows import SourceSummary
from demur.prompts.sources import open_source
from demur.types import Label, Prompt, Trace

_log = logging.getLogger("demur")

#: Placeholder text of rows that hold ids and labels only.
_NO_TEXT = "\ue0f2no text\ue0f2"


@dataclass(frozen=True)
class Labels:
    """Labels by id and by text.

    Attributes:
        source: where they come from.
        by_id: id -> labelled prompt; empty if the source has no ids.
        by_text: stripped text or goal -> label.
        summary: what was read.
    """

    source: str
    by_id: Mapping[str, Prompt] = field(repr=False)
    by_text: Mapping[str, Label] = field(repr=False)
    summary: SourceSummary = field(repr=False)

    def label_of(self, prompt: Prompt) -> Label | None:
        """The label of a prompt, by id, then text, then goal; None if there is none.

        Raises:
            InputError: the id belongs to another prompt here.
        """
        found = self.by_id.get(prompt.id)
        if found is None:
            texts = (prompt.text.strip(), prompt.goal.strip())
            return next((self.by_text[text] for text in texts if text in self.by_text), None)
        theirs = {found.text.strip(), found.goal.strip()}
        if _NO_TEXT not in theirs and not theirs & {prompt.text.strip(), prompt.goal.strip()}:
            raise InputError(
                f"The id {prompt.id!r} belongs to another prompt in {self.source}: "
                f"{found.text[:60]!r}, not {prompt.text[:60]!r}. Give the labels of the "
                "prompts that were traced, or remove the column of ids to join by text."
            )
        return found.label


def read_labels(source: str | Path) -> Labels:
    """Read labels from a source with a column of labels and a column of ids, prompts or both.

    Args:
        source: as for ``read_prompts``.

    Raises:
        InputError: as for ``read_prompts``, or no row has a label, or a text has two labels.
    """
    source = str(source)
    if source.startswith("organism:"):
        ids, (prompts, summary) = True, prompts_with_summary(source)
    else:
        table, known = open_source(source, None, {*TEXTS, *IDS, *LABELS})
        ids = find(table.columns, IDS) is not None
        if ids and not find(table.columns, TEXTS):
            table = replace(table, columns=[*table.columns, PLAIN], rows=_without_texts(table))
        prompts, summary = prompts_of(source, table, known)
    labelled = [prompt for prompt in prompts if prompt.label != "unknown"]
    if not labelled:
        raise InputError(
            f"{source} labels no prompt. {summary} Give a file with a column label "
            "(harmless, harmful, borderline)."
        )
    by_text: dict[str, Label] = {}
    for prompt in labelled:
        for text in {prompt.text.strip(), prompt.goal.strip()} - {_NO_TEXT}:
            if by_text.setdefault(text, prompt.label) != prompt.label:
                raise InputError(
                    f"{source} labels one prompt {by_text[text]} and {prompt.label}: {text[:80]!r}. "
                    "Keep one of the rows."
                )
    by_id = {prompt.id: prompt for prompt in labelled} if ids else {}
    return Labels(source, by_id, by_text, summary)


def with_labels(traces: Iterable[Trace], labels: Labels | Label) -> Iterator[Trace]:
    """Replace the labels of traces. Traces without a new label keep theirs; their number is logged.

    Args:
        traces: traces of one or more runs.
        labels: from ``read_labels``, or one label for all.

    Raises:
        InputError: at the end, if no trace got a label.
    """
    count = missing = 0
    for trace in traces:
        count += 1
        label = labels.label_of(trace.prompt) if isinstance(labels, Labels) else labels
        missing += label is None
        yield replace(trace, prompt=replace(trace.prompt, label=label)) if label else trace
    if isinstance(labels, Labels) and count and missing == count:
        raise InputError(
            f"None of {count} traces is in {labels.source}, neither by id nor by text. Give the file "
            "that was traced, or one with its ids."
        )
    if missing:
        _log.warning("%d of %d traces have no label in the file.", missing, count)


def _without_texts(table: Rows) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Add a placeholder text to rows that hold ids and labels only."""
    for where, row in table.rows:
        yield where, {**row, PLAIN: _NO_TEXT}
