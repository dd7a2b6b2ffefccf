"""Labels from words, and from columns of ones and zeros: harmless, harmful or borderline.

Only a whole value can be a label; a label is never guessed from a part of a value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demur.types import Label

#: Columns whose words are labels; the first one found is used.
LABELS = (
    *("label", "data_type", "prompt_label", "prompt_harm_label", "harm_label", "safety_label"),
)
WORDS: Mapping[str, Label] = {
    **dict.fromkeys(("harmless", "safe", "benign"), "harmless"),
    **dict.fromkeys(("harmful", "unsafe", "malicious"), "harmful"),
    "borderline": "borderline",
}
_OPPOSITE: Mapping[str, Label] = {"harmless": "harmful", "harmful": "harmless"}
_NOT = ("not", "non", "no", "un")
#: First words of ``data_type`` in WildJailbreak, which say how the prompt was made.
_MADE = ("vanilla", "adversarial")
_FLAGS = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n"), False),
}
_LABEL_LIKE = {
    *("label", "labels", "labeled", "labelled", "harm", "harmful", "harmless", "safe", "unsafe"),
    *("safety", "toxic", "toxicity", "benign", "malicious", "jailbroken"),
    *("jailbreaking", "flag", "flagged", "refusal", "refused", "compliance"),
}


@dataclass(frozen=True)
class LabelColumn:
    """A column that labels prompts.

    Attributes:
        name: name in the source.
        true: the label that 1 or true means in a column such as ``harmful`` or ``is_safe``.
    """

    name: str
    true: Label | None = None

    def label_of(self, value: Any) -> Label | None:
        """The label in a cell, or None."""
        if word := label_word(value) if isinstance(value, str) else None:
            return word
        flag = flag_of(value) if self.true else None
        if flag is None or self.true is None:
            return None
        return self.true if flag else _OPPOSITE[self.true]


def label_word(text: str) -> Label | None:
    """The label that a value names, such as ``harmful``, ``NOT_SAFE`` or ``non-harmful``; else None."""
    words = re.split(r"[\s_-]+", text.strip().casefold())
    words = words[1:] if words[0] in _MADE else words
    negated = 0
    while len(words) > 1 and words[0] in _NOT:
        negated, words = negated + 1, words[1:]
    if len(words) != 1:
        return None
    word = words[0]
    for prefix in _NOT:
        if word not in WORDS and word.removeprefix(prefix) in WORDS:
            negated, word = negated + 1, word.removeprefix(prefix)
    label = WORDS.get(word)
    return _OPPOSITE.get(label) if label and negated % 2 else label


def flag_of(value: Any) -> bool | None:
    """A cell as true or false; None if it is neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None
    return _FLAGS.get(value.strip().casefold()) if isinstance(value, str) else None


def label_columns(columns: Mapping[str, str], *, answers: bool) -> tuple[LabelColumn, ...]:
    """The columns that label prompts, in order of preference.

    Args:
        columns: lower-case name -> name in the source.
        answers: whether there is a column of answers. A column such as ``is_safe`` may then be about
            the answers, so only flags named ``prompt_...`` are taken.
    """
    found = [LabelColumn(columns[name]) for name in LABELS if name in columns]
    for name, column in columns.items():
        own = name.startswith("prompt_")
        true = label_word(name.removeprefix("prompt_").removeprefix("is_"))
        if true in _OPPOSITE and (own or not answers):
            found.append(LabelColumn(column, true))
    return tuple(found)


def looks_like_label(column: str) -> bool:
    """Whether a column's name suggests a label."""
    return not _LABEL_LIKE.isdisjoint(re.split(r"[\W_]+", column.casefold()))


def is_missing(value: Any) -> bool:
    """Whether a cell is null, NaN or an empty text."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())
