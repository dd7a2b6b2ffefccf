"""Labels from a file, put onto traces that are there already: nothing is generated again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from demur.errors import InputError
from demur.prompts.columns import TEXTS, find
from demur.prompts.prompt_files import prompts_with_summary
from demur.prompts.prompt_rows import SourceSummary
from demur.types import Label, Prompt, Trace


@dataclass(frozen=True)
class Labels:
    """Labels by id and by text.

    Attributes:
        source: where they are from.
        by_id: id -> the prompt that has it, of sources with a column of ids.
        by_text: text or goal, without space around it -> label.
        summary: what was read.
    """

    source: str
    by_id: Mapping[str, Prompt] = field(repr=False)
    by_text: Mapping[str, Label] = field(repr=False)
    summary: SourceSummary

    def label_of(self, prompt: Prompt) -> Label | None:
        """The label of a prompt: by its id, then its text, then its goal; None where there is none.

        Raises:
            InputError: the id is another prompt's here.
        """
        found = self.by_id.get(prompt.id)
        if found is None:
            texts = (prompt.text.strip(), prompt.goal.strip())
            return next((self.by_text[text] for text in texts if text in self.by_text), None)
        theirs = {found.text.strip(), found.goal.strip()}
        if found.text != found.id and not theirs & {prompt.text.strip(), prompt.goal.strip()}:
            raise InputError(
                f"The id {prompt.id!r} is another prompt in {self.source}: {found.text[:60]!r}, not "
                f"{prompt.text[:60]!r}. Give the labels of the prompts that were traced, or remove the "
                "column of ids to go by text."
            )
        return found.label


def read_labels(source: str | Path) -> Labels:
    """Read labels: a source with a column of labels, and ids, prompts or both.

    Args:
        source: as for ``read_prompts``.

    Raises:
        InputError: as for ``read_prompts``; no row has a label; or one prompt has two labels.
    """
    ...


def with_labels(traces: Iterable[Trace], labels: Labels | Label) -> Iterator[Trace]:
    """The traces with their labels; those that are not among the labels keep what they have.

    Args:
        traces: one run's or several's.
        labels: from ``read_labels``, or one for all.
    """
    ...
