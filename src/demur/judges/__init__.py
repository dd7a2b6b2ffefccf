"""Judges: (goal, response) -> hit, miss or unparsed, with the raw answer kept. To add one, write it
in a file of its own and add it to ``REFUSAL_JUDGES``.
"""

from __future__ import annotations

from collections.abc import Mapping

from demur.errors import InputError
from demur.judges.dictionary import PAPER, Dictionary
from demur.judges.verdict import Judge, Verdict

__all__ = ["REFUSAL_JUDGES", "Dictionary", "Judge", "Verdict", "refusal_judge"]

#: Judges whose hit is a refusal.
REFUSAL_JUDGES: Mapping[str, Judge] = {judge.name: judge for judge in (PAPER,)}


def refusal_judge(name: str) -> Judge:
    """Look a refusal judge up by name.

    Raises:
        InputError: no such judge.
    """
    if name not in REFUSAL_JUDGES:
        raise InputError(f"Unknown refusal judge {name!r}. Known: {', '.join(REFUSAL_JUDGES)}.")
    return REFUSAL_JUDGES[name]
